"""What a published folder attests, as in-toto statements: how its files were made, and what was measured of them.

SLSA's provenance 1 is made from the chain of a record, a test result 0.1 from answers.json. in-toto-attestation's own
messages refuse a field that they lack. The types of build and builder are names (urn:), since they have no address.
"""

from tools.publish import card
from tools.results import record as records


def descriptor(name: str, sha256: str, **more) -> dict:
    """A file as in-toto names one."""
    return {"name": name, "digest": {"sha256": sha256}, **more}


def statement(kind: str, predicate: dict, message, hashes: dict[str, str]) -> dict:
    """The statement about files {name: sha256}; message: of the predicate's own kind."""
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement as v1

    subject = [descriptor(name, sha256) for name, sha256 in hashes.items()]
    whole = {"_type": v1.STATEMENT_TYPE_URI, "subject": subject, "predicateType": kind, "predicate": predicate}
    json_format.ParseDict(predicate, message)
    v1.Statement.copy_from_pb(json_format.ParseDict(whole, v1.Statement([], "", {}).pb)).validate()
    return whole


def provenance(record: dict, hashes: dict[str, str]) -> dict:
    """How the files were made: make's words, the commit, and every file behind them. What make made is a byproduct, with the
    commands that made it; what it was given is a dependency."""
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2

    commands = lambda link: {"annotations": {"commands": [" ".join(words) for words in link["commands"]]}}
    chain = record["chain"].items()
    materials = [descriptor(path, link["sha256"]) for path, link in chain if "commands" not in link]
    products = [descriptor(path, link["sha256"], **commands(link)) for path, link in chain if "commands" in link]
    tree = [{"name": "the source tree", "digest": {"gitCommit": record["commit"]}}] if record.get("commit") else []
    build = {
        "buildType": "urn:bert2om:make",
        "externalParameters": {"make": ["accuracy", *records.make_words(record)]},
        "internalParameters": {"dirty": record.get("dirty"), "python": record["machine"]["python"]},
        "resolvedDependencies": tree + materials,
    }
    builder = {"id": f"urn:bert2om:host:{record['machine']['host']}"}
    run = {"builder": builder, "metadata": {"startedOn": record["started"]}, "byproducts": products}
    predicate = {"buildDefinition": build, "runDetails": run}
    return statement("https://slsa.dev/provenance/v1", predicate, provenance_pb2.Provenance(), hashes)


def test_result(answers: dict, truth: list, hashes: dict[str, str]) -> dict:
    """What was measured of the files: a test for each, whose name holds its figures. PASSED: it passed its gates, or make
    would have left no file."""
    from in_toto_attestation.predicates.test_result.v0 import test_result_pb2

    tests = [f"{name}: {card.whole(one)}" for name, one in card.scores(answers, truth).items()]
    configuration = [descriptor(answers["data"]["name"], answers["data"]["sha256"])]
    predicate = {"result": "PASSED", "configuration": configuration, "passedTests": tests}
    return statement("https://in-toto.io/attestation/test-result/v0.1", predicate, test_result_pb2.TestResult(), hashes)
