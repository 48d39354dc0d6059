"""Every parameter of the six released models under its three names: ours, Haiku's, Hugging Face's.

`names` is the one table for conversion both ways. Our name is a path in the variables. Layers of a
stack have names of their own in the other two formats; here they are rows of one array.
"""

from collections.abc import Iterator
from typing import NamedTuple

# ours: (Haiku's, Hugging Face's), each the prefix of a weight and a bias
_DENSE = {
    "attention/query": ("attention/linear", "attention.self.query"),
    "attention/key": ("attention/linear_1", "attention.self.key"),
    "attention/value": ("attention/linear_2", "attention.self.value"),
    "attention/out": ("attention/linear_3", "attention.output.dense"),
    "mlp/hidden": ("mlp/linear", "mlp.dense1"),
    "mlp/out": ("mlp/linear_1", "mlp.dense2"),
}
_CROSS_NORMS = {
    "norm_queries": ("layer_norm", "attention.self.layernorm1"),
    "norm_inputs": ("layer_norm_1", "attention.self.layernorm2"),
    "norm_mlp": ("layer_norm_2", "layernorm"),
}
_SELF_NORMS = {
    "norm_attention": ("layer_norm", "attention.self.layernorm1"),
    "norm_mlp": ("layer_norm_1", "layernorm"),
}
_TABLE = "trainable_position_encoding/pos_embs"
_QUERY_TABLE = "output_position_encodings.position_embeddings"
_CLASSIFIER = "classification_decoder/~/basic_decoder"
_DECODERS = {
    "imagenet_learned": _CLASSIFIER,
    "imagenet_fourier": _CLASSIFIER,
    "imagenet_conv": _CLASSIFIER,
    "language": "basic_decoder",
    "flow": "flow_decoder/~/basic_decoder",
    "kinetics": "multimodal_decoder/~/basic_decoder",
}


class Name(NamedTuple):
    """One tensor of the other two formats, and where it is in ours.

    Attributes:
      path: keys in the variables, joined by `/`; "" if there is none (a counter).
      layer: its row in the stacked array; None if it is the whole array.
      haiku: module and parameter joined by `/`; "" if there is none.
      huggingface: key in the `state_dict`; "" if there is none.
      kind: how the formats differ, see `convert`: `same`, `linear`, `conv`, `norm` or `row`.
    """

    path: str
    layer: int | None
    haiku: str
    huggingface: str
    kind: str = "same"


def names(model: str, num_layers: int) -> list[Name]:
    """All tensors of the released model `model` with `num_layers` self-attends in a block."""
    encoder = "encoder" if model == "kinetics" else "perceiver_encoder"
    decoder = _DECODERS[model]
    wrapped = "perceiver.decoder" if model == "language" else "perceiver.decoder.decoder"
    result = [
        Name(
            "params/encoder/latents", None, f"{encoder}/~/{_TABLE}", "perceiver.embeddings.latents"
        )
    ]
    result += _block(
        "params/encoder/cross_attend",
        f"{encoder}/~/cross_attention",
        "perceiver.encoder.cross_attention",
        _CROSS_NORMS,
    )
    for i in range(num_layers):
        suffix = f"_{i}" if i else ""
        result += _block(
            "params/encoder/blocks/layers",
            f"{encoder}/~/self_attention{suffix}",
            f"perceiver.encoder.self_attends.{i}",
            _SELF_NORMS,
            layer=i,
        )
    result += _block(
        "params/decoder/cross_attend",
        f"{decoder}/cross_attention",
        f"{wrapped}.decoding_cross_attention",
        _CROSS_NORMS,
    )
    return result + list(_ends(model))


def _dense(path: str, haiku: str, hf: str, layer: int | None = None) -> list[Name]:
    return [
        Name(f"{path}/kernel", layer, f"{haiku}/w", f"{hf}.weight", "linear"),
        Name(f"{path}/bias", layer, f"{haiku}/b", f"{hf}.bias"),
    ]


def _block(path, haiku, hf, norms, layer=None) -> list[Name]:
    result = []
    for ours, (theirs, torch) in _DENSE.items():
        result += _dense(f"{path}/{ours}", f"{haiku}/{theirs}", f"{hf}.{torch}", layer)
    for ours, (theirs, torch) in norms.items():
        for ending, haiku_ending, hf_ending in (
            ("scale", "scale", "weight"),
            ("bias", "offset", "bias"),
        ):
            other = (f"{haiku}/{theirs}/{haiku_ending}", f"{hf}.{torch}.{hf_ending}")
            result.append(Name(f"{path}/{ours}/{ending}", layer, *other))
    return result


def _ends(model: str) -> Iterator[Name]:
    """Parameters before the encoder and after the decoder."""
    source, wrapped = "perceiver.input_preprocessor", "perceiver.decoder.decoder"
    decoder, image = _DECODERS[model], "image_preprocessor/~"
    if model.startswith("imagenet"):
        yield Name(
            "params/output/query", None, f"{decoder}/~/{_TABLE}", f"{wrapped}.{_QUERY_TABLE}"
        )
        yield from _dense("params/output/logits", f"{decoder}/output", f"{wrapped}.final_layer")
    if model == "imagenet_learned":
        network = f"{image}_build_network_inputs"
        conv = f"{source}.convnet_1x1"
        yield Name("params/input/conv/kernel", None, f"{image}/conv2_d/w", f"{conv}.weight", "conv")
        yield Name("params/input/conv/bias", None, f"{image}/conv2_d/b", f"{conv}.bias")
        table = f"{source}.position_embeddings.position_embeddings"
        yield Name("params/input/positions", None, f"{network}/{_TABLE}", table)
        yield from _dense(
            "params/input/project_positions",
            f"{network}/position_encoding_projector/linear",
            f"{source}.positions_projection",
        )
    elif model == "imagenet_conv":
        stem, torch = f"{image}/conv2_d_downsample/~", f"{source}.convnet"
        conv = (f"{stem}/conv/w", f"{torch}.conv.weight")
        yield Name("params/input/conv/kernel", None, *conv, "conv")
        norm, torch = f"{stem}/batchnorm", f"{torch}.batchnorm"
        ours = "params/input/norm"
        yield Name(f"{ours}/scale", None, f"{norm}/scale", f"{torch}.weight", "norm")
        yield Name(f"{ours}/bias", None, f"{norm}/offset", f"{torch}.bias", "norm")
        ours = "batch_stats/input/norm"
        for key in ("mean", "var"):  # Haiku normalises by the debiased `average`
            state, other = f"{norm}/~/{key}_ema", f"{torch}.running_{key}"
            yield Name(f"{ours}/{key}", None, f"{state}/average", other, "norm")
            yield Name("", None, f"{state}/hidden", "")
            yield Name("", None, f"{state}/counter", "")
        yield Name("", None, "", f"{torch}.num_batches_tracked")
    elif model == "language":
        embedding = ("embed/embeddings", f"{source}.embeddings.weight")
        yield Name("params/input/embedding/table", None, *embedding)
        yield Name("params/input/positions", None, _TABLE, f"{source}.position_embeddings.weight")
        query = (f"{decoder}/~/{_TABLE}", f"perceiver.decoder.{_QUERY_TABLE}")
        yield Name("params/output/query", None, *query)
        yield Name("params/output/bias", None, "embedding_decoder/bias", "embedding_decoder.bias")
    elif model == "flow":
        linear = ("image_preprocessor/patches_linear", f"{source}.conv_after_patches")
        yield from _dense("params/input/project", *linear)
        yield from _dense("params/output/flow", f"{decoder}/output", f"{wrapped}.final_layer")
    elif model == "kinetics":
        yield from _kinetics_ends()


def _kinetics_ends() -> Iterator[Name]:
    heads = {  # ours: (their modality, our head, Haiku's head)
        "audio": ("audio", "samples", "audio_postprocessor"),
        "label": ("label", "logits", "classification_postprocessor"),
        "video": ("image", "pixels", "projection_postprocessor"),
    }
    source, decoder = "multimodal_preprocessor", "multimodal_decoder"
    torch = "perceiver.input_preprocessor"
    for ours, (theirs, head, postprocessor) in heads.items():
        padding = (f"{source}/{theirs}_padding/pos_embs", f"{torch}.padding.{theirs}")
        yield Name(f"params/input/padding_{ours}", None, *padding, "row")
        token = (f"{source}/{theirs}_mask_token/pos_embs", f"{torch}.mask.{theirs}")
        yield Name(f"params/input/mask_{ours}", None, *token, "row")
        padding = (
            f"{decoder}/~decoder_query/{theirs}_padding/pos_embs",
            f"perceiver.decoder.padding.{theirs}",
        )
        yield Name(f"params/output/padding_{ours}", None, *padding, "row")
        yield from _dense(
            f"params/output/modalities_{ours}/{head}",
            f"{postprocessor}/linear",
            f"perceiver.output_postprocessor.modalities.{theirs}.classifier",
        )
    query = f"perceiver.decoder.modalities.label.decoder.{_QUERY_TABLE}"
    ours = "params/output/modalities_label/query"
    yield Name(ours, None, f"{_CLASSIFIER}/~/{_TABLE}", query)
    yield from _dense(
        "params/output/project",
        f"{decoder}/~/basic_decoder/output",
        "perceiver.decoder.decoder.final_layer",
    )


def num_layers(keys) -> int:
    """How many self-attends have names among `keys`, in either format."""
    layers = {k.split("/self_attention")[1].split("/")[0] for k in keys if "/self_attention" in k}
    layers |= {k.split(".")[3] for k in keys if k.startswith("perceiver.encoder.self_attends.")}
    return len(layers)


def identify(keys) -> tuple[str, str] | None:
    """(format, model) that most of `keys` belong to, or None; a format is a field of `Name`."""
    keys = set(keys)
    best, result = 0.0, None
    for format in ("haiku", "huggingface"):
        for model in _DECODERS:
            known = {getattr(n, format) for n in names(model, num_layers(keys))} - {""}
            overlap = len(keys & known) / max(1, len(keys | known))
            if overlap > best:
                best, result = overlap, (format, model)
    return result if best > 0.5 else None
