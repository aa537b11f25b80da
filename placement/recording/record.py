"""Records the routing of texts through a model of Hugging Face transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from placement.errors import InputError, MissingExtraError, ParameterError
from placement.planning.progress import OnProgress, Reporter
from placement.recording.experts import RoutingHooks
from placement.recording.parts import Parts
from placement.recording.texts import TextTokens, tokenize_files
from placement.records.files import check_writable
from placement.routing.reader import read_trace
from placement.routing.trace import LoadCounts, Trace
from placement.routing.writer import Member, meta_member, write_members

INSTALL = "pip install 'placement[record]'"
#: Tokens of a sequence, where nothing else is said.
LENGTH = 1024
#: Types that weights may be read in; "auto" is the checkpoint's own.
DTYPES = ("auto", "float32", "bfloat16", "float16")
#: What loading a broken folder, or one of another kind, ends in.
_NO_MODEL = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError)


@dataclass(frozen=True)
class RecordOptions:
    """How to record.

    Attributes:
        tokens: of all texts, equally many of each. length: most tokens of a sequence; None: LENGTH, or the model's
            context where that is shorter. batch: sequences of a pass.
        dtype: one of DTYPES. device: such as "cpu" or "cuda"; "auto" spreads a model over GPUs; "": a GPU if any.
    """

    tokens: int = 65_536
    length: int | None = None
    batch: int = 8
    dtype: str = "auto"
    device: str = ""

    def __post_init__(self) -> None:
        for name in ("tokens", "length", "batch"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ParameterError(name, f"{given} is too few", "give at least 1")
        if self.dtype not in DTYPES:
            raise ParameterError("dtype", f"no type is called {self.dtype[:40]}", f"choose of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class Recorded:
    """A recording.

    Attributes:
        trace: as it stands in `out`. resumed: tokens that an earlier run had recorded. short: names of the texts that
            had fewer tokens than the others, where there are several.
    """

    out: str
    trace: Trace | LoadCounts
    resumed: int
    short: tuple[str, ...]


def record_trace(
    model: str | Path,
    texts: Sequence[str | Path],
    out: str | Path,
    options: RecordOptions | None = None,
    on_progress: OnProgress | None = None,
) -> Recorded:
    """Runs texts through a model and writes which experts every token used.

    Nothing is drawn: the same folder, texts and options give the same file on the same machine. An interrupted
    recording leaves its parts in the folder `out`.parts; the same call goes on from there.

    Args:
        model: a folder with config.json, weights and tokenizer, as transformers' save_pretrained writes it.
        texts: see `placement.recording.texts`. out: the trace to write (.npz).

    Raises:
        MissingExtraError: transformers or torch is not installed.
        InputError: the model or a text can't be read; the model's routing can't be recorded; `out` can't be written.
        ParameterError: an option that the model or the machine has no room for.
    """
    chosen = options or RecordOptions()
    check_writable(out, "`out`")
    folder = Path(model)
    if not (folder / "config.json").is_file():
        problem = "is no folder with a config.json"
        raise InputError(str(model), "", problem, "name a downloaded model's folder")
    config, tokenizer = _config_and_tokenizer(folder)
    length = _length(config, chosen.length)
    chosen = replace(chosen, length=length, device=chosen.device or _default_device())
    read = tokenize_files(texts, tokenizer, chosen.tokens, length)
    batches = list(_batches(read, chosen.batch))
    parts = Parts(Path(out), _fingerprint(folder, read, chosen))
    done = min(parts.done(), len(batches))
    if done < len(batches):
        reporter = Reporter(on_progress)
        reporter.stage("loading the model")
        loaded = _load(folder, config, chosen.dtype, chosen.device)
        reporter.stage("recording", len(batches))
        for _ in range(done):
            reporter.advance()
        with RoutingHooks(loaded, str(model)) as hooks:
            for number in range(done, len(batches)):
                ids, real = _padded(batches[number])
                _forward(loaded, ids, real)
                parts.add(number, hooks.take(real))
                reporter.advance()
    _write(out, parts, len(batches), read, _meta(folder, config, parts, read, chosen))
    found = read_trace(out)
    parts.remove()
    short = tuple(each.name for each in read if not each.full) if len(read) > 1 else ()
    resumed = sum(len(sequence) for batch in batches[:done] for sequence in batch)
    return Recorded(str(out), found, resumed, short)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(f"torch is not installed; {INSTALL}") from None
    return torch


def _transformers() -> Any:
    _torch()
    try:
        import transformers
    except ImportError:
        raise MissingExtraError(f"transformers is not installed; {INSTALL}") from None
    if int(transformers.__version__.split(".")[0]) < 5:
        raise MissingExtraError(f"transformers {transformers.__version__} is too old, 5 is needed; {INSTALL}")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _config_and_tokenizer(folder: Path) -> tuple[Any, Any]:
    transformers = _transformers()
    with _told(folder, "can't be read by transformers"):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(str(folder), "", "is an encoder-decoder model", "record a model that continues text")
    with _told(folder, "has no tokenizer that transformers can read"):
        return config, transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _load(folder: Path, config: Any, dtype: str, device: str) -> Any:
    """The model without its head, in inference mode.

    Raises:
        InputError: it can't be read, or lacks weights, which would be drawn at random.
    """
    transformers = _transformers()
    more: dict[str, Any] = {"device_map": "auto"} if device == "auto" else {}
    quantized = getattr(config, "quantization_config", None)
    method = quantized.get("quant_method") if isinstance(quantized, dict) else getattr(quantized, "quant_method", None)
    if method == "mxfp4":  # its kernels route by themselves, past the hooks
        more["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    with _told(folder, "can't be loaded by transformers"):
        model, told = transformers.AutoModel.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, **more
        )
        if device != "auto":
            model.to(device)
    lacking = sorted(told["missing_keys"]) or sorted(str(key) for key in told["mismatched_keys"])
    if lacking:
        problem = f"lacks {len(lacking)} weights of the model, such as {lacking[0]}"
        raise InputError(str(folder), "", problem, "download it whole: routing by random weights says nothing")
    return model.eval()


@contextmanager
def _told(folder: Path, problem: str) -> Iterator[None]:
    """Turns what transformers raises at a folder into one line that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except (*_NO_MODEL, SafetensorError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(str(folder), "", f"{problem}: {said}", "use a complete model folder") from error


def _default_device() -> str:
    return "cuda" if _torch().cuda.is_available() else "cpu"


def _length(config: Any, length: int | None) -> int:
    """Most tokens of a sequence.

    Raises:
        ParameterError: more are asked for than the model takes.
    """
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or 2**20
    if length is None:
        return min(LENGTH, context)
    if length > context:
        raise ParameterError("length", f"{length} tokens are more than the model's context of {context}", "use fewer")
    return length


def _batches(read: Sequence[TextTokens], size: int) -> Iterator[list[tuple[int, ...]]]:
    sequences = [sequence for text in read for sequence in text.sequences]
    for start in range(0, len(sequences), size):
        yield sequences[start : start + size]


def _padded(batch: Sequence[tuple[int, ...]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """[sequences, positions] ids, filled up on the right, where causal models don't see it; and which are real."""
    longest = max(len(sequence) for sequence in batch)
    ids = np.zeros((len(batch), longest), dtype=np.int64)
    real = np.zeros(ids.shape, dtype=bool)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence)] = sequence
        real[row, : len(sequence)] = True
    return ids, real


def _forward(model: Any, ids: np.ndarray[Any, Any], real: np.ndarray[Any, Any]) -> None:
    torch = _torch()
    with torch.inference_mode():
        tokens = torch.from_numpy(ids).to(model.device)
        mask = torch.from_numpy(real.astype(np.int64)).to(model.device)
        try:
            model(input_ids=tokens, attention_mask=mask, use_cache=False)
        except torch.OutOfMemoryError:
            problem = f"{len(ids)} sequences of {ids.shape[1]} tokens are too many for the memory of {model.device}"
            raise ParameterError("batch", problem, "use fewer, or a shorter `length`") from None


def _fingerprint(folder: Path, read: Sequence[TextTokens], options: RecordOptions) -> str:
    """Of all that the recorded ids follow from."""
    torch, transformers = _torch(), _transformers()
    files = sorted((file.name, file.stat().st_size) for file in folder.glob("*.safetensors*"))
    told = {
        "config": (folder / "config.json").read_text(),
        "files": files,
        "texts": [each.sequences for each in read],
        "options": asdict(options),
        "versions": [torch.__version__, transformers.__version__],
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _meta(
    folder: Path, config: Any, parts: Parts, read: Sequence[TextTokens], options: RecordOptions
) -> dict[str, Any]:
    shape = parts.shape()
    counts = {each.tokens for each in read}
    domains = {"domains": [each.name for each in read], "tokens_per_domain": counts.pop()} if len(counts) == 1 else {}
    return {
        "model": f"{folder.resolve().name} ({config.model_type})",
        "moe_layers": len(shape.layers),
        "experts": shape.experts,
        "top_k": shape.top_k,
        "layers": list(shape.layers),
        "recorded_with": f"transformers {_transformers().__version__}, torch {_torch().__version__}, "
        f"{options.dtype} on {options.device}, sequences of {options.length}",
        **domains,
    }


def _write(out: str | Path, parts: Parts, count: int, read: Sequence[TextTokens], meta: dict[str, Any]) -> None:
    lens = np.array([len(sequence) for text in read for sequence in text.sequences], dtype=np.int64)
    members = parts.members(count, int(lens.sum()))
    write_members(out, [*members, Member.of("seq_lens", lens), meta_member(meta)])
