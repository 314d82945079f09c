"""A BERT encoder as a GGUF file, as llama.cpp reads it: matrices of the layers in Q8_0, all else in fp32.

Tensor names and keys: gguf's own table for the architecture `bert` (https://github.com/ggml-org/llama.cpp/tree/master/gguf-py).
"""

import numpy as np

PIECE = "\u2581"  # llama.cpp marks what begins a word, BERT what goes on with one


def write(module, tokenizer, path: str) -> None:
    """Write the encoder of a BertForSequenceClassification, without pooler and classifier, and the tokenizer's pieces."""
    import gguf

    config = module.config
    out = gguf.GGUFWriter(path, "bert")
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_layer_norm_eps(config.layer_norm_eps)
    out.add_causal_attention(False)
    out.add_pooling_type(gguf.PoolingType.CLS)
    out.add_token_type_count(config.type_vocab_size)
    pieces = [piece for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    special = lambda piece: piece[0] == "[" and piece[-1] == "]"
    out.add_tokenizer_model("bert")
    out.add_token_list([p if special(p) else p[2:] if p.startswith("##") else PIECE + p for p in pieces])
    out.add_token_types([gguf.TokenType.CONTROL if special(p) else gguf.TokenType.NORMAL for p in pieces])
    for name, add in (("[CLS]", out.add_bos_token_id), ("[SEP]", out.add_sep_token_id), ("[PAD]", out.add_pad_token_id),
                      ("[UNK]", out.add_unk_token_id), ("[SEP]", out.add_eos_token_id)):  # fmt: skip
        add(pieces.index(name))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    narrow = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in module.bert.state_dict().items():
        if name.startswith("pooler") or name.endswith("position_ids"):
            continue
        known, values = names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.float().numpy()
        if known.startswith("blk.") and values.ndim == 2 and values.shape[1] % 32 == 0:
            out.add_tensor(known, gguf.quants.quantize(values, narrow), raw_dtype=narrow)
        else:
            out.add_tensor(known, values.astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
