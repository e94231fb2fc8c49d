"""Models of other runtimes give the numbers of the same model in torch."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from edgequant import Error
from edgequant.evaluate import evaluate
from edgequant.evaluate.load import load
from edgequant.evaluate.runtimes import runtime_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class Bigram(torch.nn.Module):
    """The smallest language model: each word's prediction is a row of a matrix product."""

    def __init__(self, words: int):
        super().__init__()
        random = np.random.default_rng(0)
        self.a, self.b = (random.standard_normal(shape, dtype=np.float32) for shape in ((words, 16), (16, words)))

    def logits(self, window):
        return self.a[window] @ self.b


@pytest.fixture
def bigram(llama):
    return Bigram(load(llama).module.config.vocab_size)


def save_onnx(model, path, output="logits", extra="past_key_values.0.key"):
    """The model as a graph, with the other inputs that exporters write, which it does not use."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto as T
    from onnx import helper as h

    def value(name, kind, shape):
        return h.make_tensor_value_info(name, kind, shape)

    graph = h.make_graph(
        [h.make_node("Gather", ["a", "input_ids"], ["rows"]), h.make_node("MatMul", ["rows", "b"], [output])],
        "bigram",
        [value("input_ids", T.INT64, ["batch", "n"]), value("attention_mask", T.INT64, ["batch", "all"]),
         value("position_ids", T.INT64, ["batch", "n"]), value(extra, T.FLOAT, ["batch", 2, "past", 16])],
        [value(output, T.FLOAT, ["batch", "n", model.b.shape[1]])],
        [h.make_tensor("a", T.FLOAT, model.a.shape, model.a.ravel()),
         h.make_tensor("b", T.FLOAT, model.b.shape, model.b.ravel())],
    )  # fmt: skip
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10), path)


def save_tokenizer(source, folder):
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)


def expected_nll(model, llama, text):
    ids = load(llama).tokenizer(text.read_text()).input_ids[: 3 * 32]
    nll = []
    for window in np.array(ids).reshape(3, 32):
        rows = model.logits(window).astype(np.float64)
        chosen = rows[np.arange(31), window[1:]]
        nll.append(np.log(np.exp(rows[:-1]).sum(1)) - chosen)
    return np.mean(nll)


@pytest.mark.parametrize("layout", ["file", "directory", "genai"])
def test_onnx(bigram, llama, text, tmp_path, layout):
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "model"
    save_tokenizer(llama, folder)
    save_onnx(bigram, folder / ("decoder.onnx" if layout == "genai" else "model.onnx"))
    if layout == "genai":
        config = {"model": {"decoder": {"filename": "decoder.onnx"}}}
        (folder / "genai_config.json").write_text(json.dumps(config))
    model = folder / "model.onnx" if layout == "file" else folder
    result = evaluate(model, text=text, context=32, windows=3)
    assert result.language.nll.value == pytest.approx(expected_nll(bigram, llama, text), rel=1e-5)
    assert "ONNX Runtime" in result.protocol.line()
    same = evaluate(model, model, text=text, context=32, windows=3)
    assert abs(same.language.kl.value) < 1e-6 and same.language.top1.value == 1


def test_a_model_of_another_runtime_against_one_in_torch(bigram, llama, text, tmp_path):
    pytest.importorskip("onnxruntime")
    save_tokenizer(llama, tmp_path)
    save_onnx(bigram, tmp_path / "model.onnx")
    options = {"text": text, "context": 32, "windows": 3}
    forward = evaluate(tmp_path, llama, **options).language
    assert forward.kl.value > 0.1 and forward.kl_bounds is None
    backward = evaluate(llama, tmp_path, **options).language
    assert backward.reference_perplexity == pytest.approx(forward.perplexity)
    assert backward.kl_bounds is not None  # by a cache, which holds this small vocabulary whole
    assert backward.kl_bounds[0] == pytest.approx(backward.kl.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's exporter about itself
def test_exported_llama_in_onnx_runtime(llama, text, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module = transformers.AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager")

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = module

        def forward(self, input_ids):
            return self.model(input_ids=input_ids, use_cache=False).logits

    save_tokenizer(llama, tmp_path)
    ids = torch.zeros((1, 48), dtype=torch.int64)
    names = {"input_names": ["input_ids"], "output_names": ["logits"]}
    program = torch.onnx.export(Logits().eval(), (ids,), **names, dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx")
    score = evaluate(tmp_path, llama, text=text, context=48, windows=4).language
    assert score.kl.value < 1e-6 and score.top1.value == 1


@pytest.mark.peer
def test_openvino(bigram, llama, text, tmp_path):
    openvino = pytest.importorskip("openvino")
    save_onnx(bigram, tmp_path / "x.onnx")
    folder = tmp_path / "ir"
    save_tokenizer(llama, folder)
    openvino.save_model(
        openvino.convert_model(tmp_path / "x.onnx"), folder / "openvino_model.xml", compress_to_fp16=False
    )
    for model in (folder, folder / "openvino_model.xml"):
        result = evaluate(model, text=text, context=32, windows=3)
        assert result.language.nll.value == pytest.approx(expected_nll(bigram, llama, text), rel=1e-3)
        assert "OpenVINO" in result.protocol.line()


@pytest.mark.peer
def test_mlx(llama, text, tmp_path):
    pytest.importorskip("mlx_lm")
    score = evaluate(llama, llama, text=text, context=32, windows=3, runtime="mlx").language
    assert score.kl.value < 1e-4 and score.top1.value > 0.97


@pytest.mark.peer
def test_llama_cpp(llama, text, tmp_path):
    pytest.importorskip("llama_cpp")
    import edgequant

    file = tmp_path / "x.gguf"
    edgequant.quantize_model(llama, file, "f32", progress=False)
    result = evaluate(file, llama, text=text, context=32, windows=3, runtime="llama.cpp")
    assert result.language.kl.value < 1e-4 and result.language.top1.value > 0.97
    assert "llama.cpp" in result.protocol.line()


def test_runtimes_are_chosen_by_what_lies_there(llama, bert, tmp_path):
    (tmp_path / "model.onnx").touch()
    mlx = tmp_path / "mlx"
    mlx.mkdir()
    (mlx / "config.json").write_text(json.dumps({"quantization": {"group_size": 64, "bits": 4}}))
    found = [
        runtime_of(p)
        for p in (llama, bert, tmp_path / "x.gguf", tmp_path, tmp_path / "x.onnx", tmp_path / "x.xml", mlx)
    ]
    assert found == ["torch", "torch", "torch", "onnxruntime", "onnxruntime", "openvino", "mlx"]


@pytest.mark.parametrize(("runtime", "module", "command"), [
    ("onnxruntime", "onnxruntime", "pip install onnxruntime"), ("openvino", "openvino", "pip install openvino"),
    ("mlx", "mlx", r"pip install mlx\[cpu\] mlx-lm"), ("llama.cpp", "llama_cpp", "pip install llama-cpp-python"),
])  # fmt: skip
def test_an_absent_runtime_is_named_with_the_command(llama, text, monkeypatch, runtime, module, command):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.core", None)
    with pytest.raises(Error, match=f"{module}: {command}"):
        evaluate(llama, text=text, runtime=runtime)


def test_what_other_runtimes_cannot_do_is_refused(bigram, llama, text, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(Error, match='runtime "tpu" is not known'):
        evaluate(llama, text=text, runtime="tpu")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(Error, match=r"broken\.onnx: onnxruntime cannot load"):
        evaluate(tmp_path / "broken.onnx", text=text)
    save_onnx(bigram, tmp_path / "x.onnx")
    with pytest.raises(Error, match="cannot load the tokenizer"):
        evaluate(tmp_path / "x.onnx", text=text)
    options = {"text": text, "context": 32, "windows": 1, "tokenizer": llama}
    assert evaluate(tmp_path / "x.onnx", **options).language.perplexity > 1
    with pytest.raises(Error, match="only models that run in torch have layers"):
        evaluate(tmp_path / "x.onnx", llama, layers=True, **options)
    save_onnx(bigram, tmp_path / "y.onnx", output="last_hidden_state")
    with pytest.raises(Error, match="no output logits"):
        evaluate(tmp_path / "y.onnx", **options)
    save_onnx(bigram, tmp_path / "z.onnx", extra="pixel_values")
    with pytest.raises(Error, match="an input pixel_values"):
        evaluate(tmp_path / "z.onnx", **options)
