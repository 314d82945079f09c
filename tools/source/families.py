"""The families of encoders: BERT's layer under other names. One table, which loader, seeded weights and export read.

    families.shapes(config)            # {tensor: shape} as a checkpoint of this family names them
    families.as_bert(config, tensors)  # the same classifier as BertForSequenceClassification's tensors

A family that is BERT's layer under other names is one entry of FAMILIES. Names and functions: transformers 5,
models/<family>/modeling_<family>.py.
"""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """prefix: of the encoder's tensors. names: (a piece of BERT's name, the family's). keys: BERT's name of a
    configuration value, and the family's. defaults: where a config.json is silent. head: what stands between the two
    layers of the classifier. from_pad: positions are counted from pad_token_id + 1. shared: layers are those of groups.
    task_types: rows of a table that config.json may switch on. unused: tensors that transformers leaves alone, too."""

    prefix: str
    names: tuple = ()
    keys: dict = field(default_factory=dict)
    defaults: dict = field(default_factory=dict)
    head: str = "tanh"
    from_pad: bool = False
    shared: bool = False
    task_types: int = 0
    unused: tuple = ()


def pairs(text):
    """((old, new), ...) of the words old=new."""
    return tuple(tuple(word.split("=")) for word in text.split())


HEAD = pairs("classifier.=classifier.out_proj. bert.pooler.dense.=classifier.dense.")
ELECTRA = (*HEAD, *pairs("embeddings.projection=embeddings_project"))
DISTILBERT = pairs("""
    bert.pooler.dense=pre_classifier bert.encoder=bert.transformer self.query=q_lin self.key=k_lin self.value=v_lin
    attention.output.dense=attention.out_lin attention.output.LayerNorm=sa_layer_norm intermediate.dense=ffn.lin1
    output.dense=ffn.lin2 output.LayerNorm=output_layer_norm""")
ALBERT = pairs("""
    bert.pooler.dense=bert.pooler embeddings.projection=encoder.embedding_hidden_mapping_in attention.self.=attention.
    attention.output.=attention. intermediate.dense=ffn output.dense=ffn_output output.LayerNorm=full_layer_layer_norm""")
DISTILBERT_KEYS = pairs("""
    hidden_size=dim num_hidden_layers=n_layers num_attention_heads=n_heads intermediate_size=hidden_dim
    hidden_act=activation type_vocab_size=no_types""")
FAMILIES = {
    "bert": Family("bert"),
    "tinybert": Family("bert", head="tanh relu", unused=("fit_dense.", "fit_denses.")),
    "ernie": Family("ernie", task_types=3, unused=("ernie.embeddings.task_type_embeddings.",)),
    "roberta": Family("roberta", HEAD, defaults={"pad_token_id": 1}, from_pad=True, unused=("roberta.pooler.",)),
    "electra": Family("electra", ELECTRA, defaults={"embedding_size": 128}, head="gelu"),
    "distilbert": Family("distilbert", DISTILBERT, dict(DISTILBERT_KEYS), {"type_vocab_size": 0}, head="relu"),
    "albert": Family("albert", ALBERT, {}, {"embedding_size": 128, "hidden_act": "gelu_new"}, shared=True),
}
# model_type of a config.json, where it is not the family's name.
KINDS = {"xlm-roberta": "roberta", "camembert": "roberta"}
# What it would take to read other encoders that are much used, and their model_type.
NEEDS = {
    "a bias by distance on its attention scores": "mpnet",
    "attention by content and distance apart": "deberta deberta-v2",
    "rotary positions, gated layers and local attention": "modernbert",
    "rotary positions and gated layers": "nomic_bert new",
    "rotary positions": "roformer",
    "local attention": "longformer",
    "LayerNorm before each part of a layer": "xlm-roberta-xl roberta-prelayernorm",
    "bottleneck layers": "mobilebert",
    "attention over permuted tokens": "xlnet",
    "a decoder": "bart",
}
REFUSED = {kind: what for what, kinds in NEEDS.items() for kind in kinds.split()}
# Heads for training alone, which a classifier may carry along.
UNUSED = ("lm_head.", "cls.", "discriminator_predictions.", "generator_predictions.", "loss_fct.")
WORD, POSITION, TYPE = (f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type"))
TASK = "ernie.embeddings.task_type_embeddings.weight"

# Other projects' names of the same tensors, as patterns: fairseq's RoBERTa; github.com/lonePatient/albert_pytorch at 46de9ec.
FAIRSEQ, ALBERT_PYTORCH = "encoder.sentence_encoder.", "bert.encoder.transformer.group."
FOREIGN = {
    FAIRSEQ: pairs(r"""
        ^encoder\.(lm_head|sentence_encoder\.version)=lm_head. ^classification_heads\.\w+\.=classifier.
        ^encoder\.sentence_encoder\.=roberta. \.embed_tokens\.=.embeddings.word_embeddings.
        \.embed_positions\.=.embeddings.position_embeddings. \.(emb_layer_norm|layernorm_embedding)\.=.embeddings.LayerNorm.
        \.layers\.=.encoder.layer. self_attn\.q_proj=attention.self.query self_attn\.k_proj=attention.self.key
        self_attn\.v_proj=attention.self.value self_attn\.out_proj=attention.output.dense
        self_attn_layer_norm=attention.output.LayerNorm \.fc1\.=.intermediate.dense. \.fc2\.=.output.dense.
        \.final_layer_norm\.=.output.LayerNorm."""),
    ALBERT_PYTORCH: pairs(r"""
        ^bert\.=albert. transformer\.group\.=albert_layer_groups. pooler\.dense=pooler
        inner_group\.(\d+)\.LayerNorm\.=inner_group.\1.attention.LayerNorm. attention\.self\.=attention.
        inner_group\.(\d+)\.LayerNorm_1\.=inner_group.\1.full_layer_layer_norm. inner_group\.=albert_layers.
        attention\.output\.=attention. ffn\.intermediate\.output\.dense=ffn_output ffn\.intermediate\.dense=ffn"""),
}


def translate(tensors):
    """Tensors of fairseq's RoBERTa or of lonePatient's ALBERT under transformers' names; others as they are.

    fairseq has no token types: one row of zeros, as transformers' own converter writes it. The other's classifier reads
    0.1 more than the pooler gives (modeling_albert.py, line 855): the same as a larger bias.
    """
    mark = next((mark for mark in FOREIGN if any(name.startswith(mark) for name in tensors)), None)
    if mark is None:
        return tensors
    theirs = {}
    for name, tensor in tensors.items():
        for pattern, instead in FOREIGN[mark]:
            name = re.sub(pattern, instead, name)
        theirs[name] = tensor
    word = theirs.get("roberta.embeddings.word_embeddings.weight")
    weight, bias = (theirs.get(f"classifier.{name}") for name in ("weight", "bias"))
    if mark == FAIRSEQ and word is not None:
        theirs["roberta.embeddings.token_type_embeddings.weight"] = 0 * word[:1]
    if mark == ALBERT_PYTORCH and weight is not None and bias is not None:
        theirs["classifier.bias"] = bias + 0.1 * weight.sum(1)
    return theirs


def family_of_tensors(names, model_type):
    """The family whose tensors these are, by how their names begin; None for none. `model_type`: of config.json, for a tie."""
    fits = [kind for kind, family in FAMILIES.items() if any(n.startswith(f"{family.prefix}.") for n in names)]
    if any(name.startswith(FAMILIES["tinybert"].unused) for name in names):
        return "tinybert"
    return model_type if model_type in fits else next(iter(fits), None)


def first_position(config) -> int:
    """The row of the table of positions that a sentence's first token gets."""
    return config["pad_token_id"] + 1 if FAMILIES[config["family"]].from_pad else 0


def family_name(config, name):
    """The family's name of one of BERT's tensors."""
    family = FAMILIES[config["family"]]
    if family.shared and (place := re.match(r"bert\.encoder\.layer\.(\d+)\.(.*)", name)):
        i, inner = divmod(int(place[1]), config["inner_group_num"])
        group = i * config["num_hidden_groups"] // config["num_hidden_layers"]
        name = f"bert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.{place[2]}"
    encoder = name.startswith("bert.")
    for ours, theirs in family.names:  # a short piece such as output.dense is never inside another one
        name = re.sub(rf"(?<![\w]){re.escape(ours)}", theirs, name, count=1)
    return name.replace("bert.", f"{family.prefix}.", 1) if encoder and name.startswith("bert.") else name


def layers(config) -> int:
    """How many layers the encoder has in BERT's form."""
    return config["num_hidden_layers"] * config.get("inner_group_num", 1)


def bert_shapes(config):
    """{tensor: shape} of the classifier (of two labels where config names none) as BERT has it, in transformers' names;
    `bert.embeddings.projection` stands behind the table where it `has_projection`."""
    h, e, ff = config["hidden_size"], config["embedding_size"], config["intermediate_size"]
    linear = lambda name, out, into: {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
    norm = lambda name, size: {f"{name}.LayerNorm.{part}": (size,) for part in ("weight", "bias")}
    expected = {
        WORD: (config["vocab_size"], e),
        POSITION: (config["max_position_embeddings"] + first_position(config), e),
        TYPE: (config["type_vocab_size"], e),
        **norm("bert.embeddings", e),
    }
    if not config["type_vocab_size"]:
        del expected[TYPE]
    if has_projection(config):
        expected |= linear("bert.embeddings.projection", h, e)
    for i in range(layers(config)):
        layer = f"bert.encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            expected |= linear(f"{layer}.attention.{part}", h, h)
        expected |= norm(f"{layer}.attention.output", h)
        expected |= linear(f"{layer}.intermediate.dense", ff, h)
        expected |= linear(f"{layer}.output.dense", h, ff)
        expected |= norm(f"{layer}.output", h)
    return expected | linear("bert.pooler.dense", h, h) | linear("classifier", len(config["labels"]) or 2, h)


def has_projection(config) -> bool:
    """Whether a linear layer stands between the embeddings and the first layer: ALBERT has one of any size."""
    return config["embedding_size"] != config["hidden_size"] or FAMILIES[config["family"]].shared


def shapes(config):
    """{tensor: shape} of a classifier, as its family names them: what a checkpoint of this configuration holds."""
    expected = {family_name(config, name): shape for name, shape in bert_shapes(config).items()}
    return expected | ({TASK: (config["task_types"], config["embedding_size"])} if config["task_types"] else {})


def as_bert(config, tensors):
    """A family's tensors (numpy, of `shapes`) as BERT's: positions from the first that is used; two token types of zeros
    where it has none."""
    bert = {name: tensors[family_name(config, name)] for name in bert_shapes(config)}
    bert[POSITION] = bert[POSITION][first_position(config) :]
    types = bert.get(TYPE, 0 * bert[POSITION][:2])
    bert[TYPE] = types + tensors[TASK][0] if TASK in tensors else types
    return bert
