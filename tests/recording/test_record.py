"""Routing recorded from models of transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.cli.trace_record import DTYPES as COMMAND_DTYPES
from placement.errors import InputError, MissingExtraError, ParameterError
from placement.planning.progress import Progress
from placement.recording import record as record_module
from placement.recording.record import DTYPES, RecordOptions, record_trace
from placement.routing.reader import read_trace
from placement.routing.trace import Trace
from tests.cli.conftest import ROOT
from tests.recording.models import MODELS, save_model, save_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

OPTIONS = RecordOptions(tokens=150, length=40, batch=3, device="cpu")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two texts: one document, and several of unlike lengths."""
    folder = tmp_path_factory.mktemp("texts")
    plain, lines = folder / "plain.txt", folder / "lines.jsonl"
    plain.write_text("Die Routen der Experten hängen vom Text ab. " * 9, encoding="utf-8")
    documents = ["a short one", "a much longer document, which takes two sequences of forty tokens", "the last " * 20]
    lines.write_text("\n".join(json.dumps({"text": text}) for text in documents) + "\n")
    return [plain, lines]


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("mixtral", tmp_path_factory.mktemp("models") / "mixtral")


def routers_choice(folder: Path, batch: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """[MoE layers, tokens, k] ids and weights that the routers give out, of one padded batch without its padding."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    found: list[tuple[Any, Any]] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        if isinstance(output, tuple):
            (ids,) = (each for each in output if not each.is_floating_point())
            (weights,) = (each for each in output if each.is_floating_point() and each.shape == ids.shape)
            found.append((ids, weights))

    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("gate", "router"):
            module.register_forward_hook(hook)
    vocabulary = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [vocabulary(text)["input_ids"] for text in batch]
    longest = max(map(len, rows))
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        model(input_ids=torch.tensor([row + [0] * (longest - len(row)) for row in rows]), attention_mask=mask)
    real = mask.reshape(-1).bool()
    return np.stack([ids[real].numpy() for ids, _ in found]), np.stack([each[real].numpy() for _, each in found])


@pytest.mark.parametrize("name", MODELS)
def test_the_ids_are_those_that_the_routers_give_out(name: str, tmp_path: Path) -> None:
    folder = save_model(name, tmp_path / name)
    _, _, layers, experts, top_k = MODELS[name]
    sequences = ["the first of three sequences", "another", "and the third, which is the longest"]
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": each}) for each in sequences))
    size = sum(map(len, sequences))
    done = record_trace(folder, [text], tmp_path / "t.npz", RecordOptions(tokens=size, batch=3, device="cpu"))
    trace = read_trace(tmp_path / "t.npz", experts=experts, layers=len(layers), top_k=top_k)
    assert isinstance(trace, Trace)
    assert done.trace.tokens == trace.tokens == size
    assert trace.meta["layers"] == list(layers)
    assert trace.seq_lens.tolist() == [len(each) for each in sequences]
    ids, weights = routers_choice(folder, sequences)
    assert np.array_equal(trace.topk_ids, ids)
    assert len(np.unique(ids)) > top_k  # a router that always says the same would pass any test
    assert trace.topk_weights is not None
    assert np.allclose(trace.topk_weights, weights, atol=2e-3)


def test_texts_share_the_tokens_and_are_domains(mixtral: Path, texts: list[Path], tmp_path: Path) -> None:
    done = record_trace(mixtral, texts, tmp_path / "t.npz", OPTIONS)
    assert isinstance(done.trace, Trace)
    assert (done.trace.meta["domains"], done.trace.meta["tokens_per_domain"]) == (["plain", "lines"], 75)
    assert done.trace.seq_lens.tolist() == [40, 35, 11, 40, 24]
    assert done.short == ()
    assert not (tmp_path / "t.npz.parts").exists()
    longer = record_trace(mixtral, texts, tmp_path / "u.npz", RecordOptions(tokens=1000, length=64, device="cpu"))
    assert longer.short == ("plain", "lines")
    assert "domains" not in longer.trace.meta  # type: ignore[union-attr]


def test_an_interrupted_recording_goes_on_to_the_same_bytes(mixtral: Path, texts: list[Path], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.npz", tmp_path / "cut.npz"
    record_trace(mixtral, texts, whole, OPTIONS)

    def interrupt(at: Progress) -> None:
        if at.stage == "recording" and at.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_trace(mixtral, texts, cut, OPTIONS, interrupt)
    assert not cut.exists()
    with pytest.raises(InputError, match="parts of a recording of another model, other texts or other options"):
        record_trace(mixtral, texts[:1], cut, OPTIONS)
    seen: list[Progress] = []
    done = record_trace(mixtral, texts, cut, OPTIONS, seen.append)
    assert done.resumed == 40 + 35 + 11
    assert [at.done for at in seen if at.stage == "recording"] == [0, 1, 2]
    assert cut.read_bytes() == whole.read_bytes()


def test_weights_that_are_not_there_are_not_drawn_at_random(mixtral: Path, texts: list[Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_model("mixtral", tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "layers.1" in name and "gate" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights of the model, such as layers\.1"):
        record_trace(folder, texts, tmp_path / "t.npz", OPTIONS)


def dense(folder: Path) -> Path:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=260,
        max_position_embeddings=128,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def sorted_tokens(folder: Path) -> Path:
    """Llama 4 hands its experts tokens, and no indices."""
    config = transformers.Llama4TextConfig(
        hidden_size=32, intermediate_size=32, intermediate_size_mlp=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, vocab_size=260, num_local_experts=4, num_experts_per_tok=1, moe_layers=[0],
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    transformers.Llama4ForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder, "is no folder with a config.json"),
        (dense, "has no experts whose routing can be recorded"),
        (sorted_tokens, r"hands its experts \(Llama4TextExperts, layers\.0\.feed_forward\.experts\) no indices"),
    ],
)
def test_models_that_cannot_be_recorded_are_refused_with_the_cause(
    make: Any, words: str, texts: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        record_trace(make(tmp_path / "model"), texts, tmp_path / "t.npz", OPTIONS)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "has no text"),
        ("a.txt", b"\xff\xfe", "is no UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}\n', "line 2: is no JSON object"),
        ("a.jsonl", b"[" * 100_000, "line 1: is no JSON object"),
        ("none.txt", None, "can't be read: No such file"),
    ],
)
def test_defects_of_texts_are_one_line(
    name: str, content: bytes | None, words: str, mixtral: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as told:
        record_trace(mixtral, [tmp_path / name], tmp_path / "t.npz", OPTIONS)
    assert "\n" not in str(told.value)


def test_options_that_do_not_fit_are_refused(mixtral: Path, texts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="more than the model's context of 128"):
        record_trace(mixtral, texts, tmp_path / "t.npz", RecordOptions(length=129))
    with pytest.raises(ParameterError, match="give at least 1"):
        RecordOptions(batch=0)
    with pytest.raises(InputError, match="fewer than 2 files"):
        record_trace(mixtral, texts, tmp_path / "t.npz", RecordOptions(tokens=1))


def test_the_command_knows_the_same_types() -> None:
    assert COMMAND_DTYPES == DTYPES


def test_without_transformers_the_extra_is_named(
    mixtral: Path, texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'placement\[record\]'"):
        record_trace(mixtral, texts, tmp_path / "t.npz", OPTIONS)
    assert record_module.INSTALL.endswith("'placement[record]'")


def test_the_command_records(mixtral: Path, texts: list[Path], tmp_path: Path) -> None:
    arguments = ["--model", str(mixtral), "--text", str(texts[0]), "--text", str(texts[1]), "--out", "t.npz"]
    done = subprocess.run(
        [sys.executable, "-m", "placement", "trace", "record", *arguments, "--tokens", "100", "--length", "32"],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "t.npz: <Trace t: 3 layers, 100 tokens, top-2 of 4>\n"
