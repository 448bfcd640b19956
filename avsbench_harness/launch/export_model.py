"""Export of a trained run through ``torch.export``, as a PyTorch program or an ONNX model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from avsbench_harness.data.audio.separation import NO_SEPARATOR, SEPARATORS
from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.load_weights import load_weights_strict
from avsbench_harness.engine.run import Run
from avsbench_harness.engine.system import System, build_system
from avsbench_harness.errors import AvsbError, MissingDataError, UsageError, describe
from avsbench_harness.files import atomic_write, write_json
from avsbench_harness.weights.tensors import load_tensors

#: Suffixes of the files by format: PyTorch program and ONNX model.
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}

#: Largest difference from the eager prediction, relative to the largest absolute value of that (at least 1).
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        file: the model.
        description: JSON file with the names, shapes and meaning of its inputs and its output.
        inputs: name -> shape.
        difference: largest difference from the eager prediction, relative as in :data:`TOLERANCE`.
    """

    file: Path
    description: Path
    inputs: dict[str, list[int]]
    difference: float


def export_model(run: Run, form: str, file: Path) -> Exported:
    """Export the selected weights of a run for one clip of full length, and check the result.

    Args:
        run: a trained run; it is exported on the CPU in float32.
        form: ``torch`` (a program for ``torch.export.load``) or ``onnx``.
        file: written whole or not at all; its description is beside it.

    Raises:
        MissingDataError: the run is not trained.
        UsageError: a package for the format is missing.
        AvsbError: the method cannot be exported, with the reason, or its export predicts something else.
    """
    if form == "onnx":
        _check_onnx()
    if not run.weights_file.is_file():
        raise MissingDataError(f"{run.id} has no trained weights at {run.weights_file}; train it first.")
    system = build_system(run, pretrained=False).eval()
    load_weights_strict(system, load_tensors(run.weights_file))
    inputs = example_inputs(run, system)
    predictor = Predictor(system, list(inputs)).eval()
    given = tuple(inputs.values())
    with torch.no_grad():
        expected = predictor(*given)
    program = _exported(predictor, given, run.method.name)
    if form == "torch":
        content, found = _save_torch(program, given)
    else:
        content, found = _save_onnx(program, given, list(inputs), run.method.name)
    scale = max(1.0, float(expected.abs().max()))
    difference = float((found - expected).abs().max()) / scale
    if not difference <= TOLERANCE:
        raise AvsbError(
            f"The exported model of {run.id} predicts something else than the run: the largest difference is "
            f"{difference:.3g}, and {TOLERANCE:g} is allowed; nothing was written."
        )
    with atomic_write(file) as opened:
        opened.write(content)
    shapes = {name: list(value.shape) for name, value in inputs.items()}
    description = file.with_suffix(".json")
    write_json(description, _description(run, form, shapes, list(expected.shape), difference))
    return Exported(file, description, shapes, difference)


def example_inputs(run: Run, system: System) -> dict[str, Tensor]:
    """Random inputs of one clip of full length; the same for every call."""
    frames, side = run.task.frames, run.recipe.image_size
    separator = run.recipe.audio.separator
    sources = () if separator == NO_SEPARATOR else (SEPARATORS[separator].sources,)
    sound = (128,) if system.encoder is None else (1, 96, 64)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "images": torch.randn(1, frames, 3, side, side, generator=generator),
        "audio": torch.randn(1, frames, *sources, *sound, generator=generator),
    }
    if run.recipe.maskige is not None:
        inputs["maskige"] = torch.randn(1, frames, 3, side, side, generator=generator)
    return inputs


class Predictor(nn.Module):
    """A system as a function of tensors; all frames are valid.

    Args:
        system: model and audio encoder.
        names: of the inputs, attributes of :class:`Batch`, in order.
    """

    def __init__(self, system: System, names: list[str]) -> None:
        super().__init__()
        self.system = system
        self.names = names
        #: Buffers that are one Boolean, such as whether a codebook was initialised.
        self._flags = [
            (module, name, bool(value))
            for module in system.modules()
            for name, value in module.named_buffers(recurse=False)
            if value.dtype is torch.bool and value.dim() == 0
        ]

    def forward(self, *inputs: Tensor) -> Tensor:
        """The prediction, see :meth:`.Model.predict`."""
        flags = [(getattr(module, name), value) for module, name, value in self._flags]
        with CompleteFrames(flags):
            given: dict[str, Any] = dict(zip(self.names, inputs, strict=True))
            batch = Batch(**given)
            prediction: Tensor = self.system.model.predict(self.system.embed(batch))
        return prediction


class CompleteFrames(TorchFunctionMode):
    """Computes the masks of frames while a model is traced.

    Models select valid frames by masks whose values are not known to ``torch.export``. Those of a clip
    without padded frames are all true, and so is what is cut from them; their values are used instead, and
    those of Boolean flags of the model. Attention with 3-dimensional inputs, which the ONNX exporter lacks,
    gets a fourth dimension.
    """

    _TESTS = (Tensor.any, Tensor.all, torch.any, torch.all)
    _VIEWS = (
        Tensor.flatten, Tensor.repeat_interleave, Tensor.view, Tensor.reshape, Tensor.expand, Tensor.repeat,
        Tensor.unsqueeze, Tensor.any, Tensor.all, Tensor.clone, Tensor.contiguous, Tensor.to,
        torch.flatten, torch.repeat_interleave, torch.any, torch.all,
    )  # fmt: skip

    def __init__(self, flags: Sequence[tuple[Tensor, bool]] = ()) -> None:
        super().__init__()
        self._known: list[Tensor] = []
        self._flags = flags

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        first = args[0] if args else None
        if function is Tensor.__bool__:
            for flag, value in self._flags:
                if first is flag:
                    return value
        if isinstance(first, Tensor) and self._is_complete(first):
            answer = self._answer(function, first, args[1:], given)
            if answer is not None:
                return answer
        if function is Tensor.__getitem__:
            index = args[1] if not isinstance(args[1], tuple) or len(args[1]) != 1 else args[1][0]
            if isinstance(index, Tensor) and self._is_complete(index):
                selected = args[0].flatten(0, index.dim() - 1)
                return self._note(selected) if self._is_complete(first) else selected
        if function is F.scaled_dot_product_attention and [one.dim() for one in args[:3]] == [3, 3, 3]:
            mask = given.get("attn_mask", args[3] if len(args) > 3 else None)
            options = {key: value for key, value in given.items() if key != "attn_mask"}
            mask = None if mask is None else mask.unsqueeze(-3)
            query, key, value = (one.unsqueeze(1) for one in args[:3])
            return function(query, key, value, attn_mask=mask, **options).squeeze(1)
        result = function(*args, **given)
        whole = function in (torch.ones, torch.ones_like) and result.dtype is torch.bool
        kept = self._is_complete(first) and (function in self._VIEWS or function is Tensor.__getitem__)
        return self._note(result) if whole or kept else result

    def _answer(self, function: Any, mask: Tensor, others: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The value of a function of a complete mask; ``None`` if it has to be traced."""
        if function in self._TESTS and not others and not options:
            return True
        if function in (Tensor.nonzero, torch.nonzero) and not options:
            return torch.tensor(list(product(*map(range, mask.shape))), device=mask.device)
        if function is Tensor.__bool__ or (function is Tensor.item and mask.numel() == 1):
            return True
        if function in (torch.equal, Tensor.equal) and self._is_complete(others[0]):
            return mask.shape == others[0].shape
        if function in (Tensor.__and__, Tensor.logical_and) and self._is_complete(others[0]):
            return mask
        return None

    def _note(self, mask: Tensor) -> Tensor:
        self._known.append(mask)
        return mask

    def _is_complete(self, value: object) -> bool:
        return isinstance(value, Tensor) and any(value is one for one in self._known)


def _exported(predictor: Predictor, given: tuple[Tensor, ...], name: str) -> torch.export.ExportedProgram:
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(predictor, given)
    except Exception as error:
        raise AvsbError(f"{name} cannot be exported: {_reason(error)}") from error


def _save_torch(program: torch.export.ExportedProgram, given: tuple[Tensor, ...]) -> tuple[bytes, Tensor]:
    """The program's file, and the prediction of the program read back from it."""
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        torch.export.save(program, buffer)
        buffer.seek(0)
        found: Tensor = torch.export.load(buffer).module()(*given)
    return buffer.getvalue(), found


def _save_onnx(
    program: torch.export.ExportedProgram, given: tuple[Tensor, ...], names: list[str], method: str
) -> tuple[bytes, Tensor]:
    """The ONNX model, and its prediction by ONNX Runtime if it is installed, else by ONNX's own evaluator."""
    try:
        with _quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program, dynamo=True, input_names=names, output_names=["prediction"], verbose=False
            )
        assert exported is not None  # no file was named
        content = exported.model_proto.SerializeToString()
    except Exception as error:
        raise AvsbError(f"{method} cannot be exported to ONNX: {_reason(error)}") from error
    arrays = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return content, torch.from_numpy(session.run(None, arrays)[0])
    from onnx.reference import ReferenceEvaluator

    outputs: Any = ReferenceEvaluator(exported.model_proto).run(None, arrays)
    return content, torch.from_numpy(outputs[0])


def _check_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--format onnx needs {' and '.join(missing)}; install with "
            "`pip install 'avsbench-harness[onnx]'`."
        )


def _description(
    run: Run, form: str, inputs: dict[str, list[int]], output: list[int], difference: float
) -> dict[str, Any]:
    """The description of an exported model as JSON values."""
    meanings = {
        "images": "RGB frames in [0, 1], one per second, ImageNet-normalised, of one clip",
        "audio": "VGGish embeddings"
        if inputs["audio"][-1] == 128
        else "log-mel examples of the VGGish front end",
        "maskige": "COMBO's images of class-agnostic masks, ImageNet-normalised",
    }
    kind = "class scores" if run.task.semantic else "probabilities of sounding objects"
    return {
        "run": run.id,
        "spec_hash": run.spec.hash,
        "format": form,
        "inputs": {name: {"shape": shape, "meaning": meanings[name]} for name, shape in inputs.items()},
        "output": {"shape": output, "meaning": kind},
        "difference": difference,
        "tolerance": TOLERANCE,
        "torch": torch.__version__,
    }


def _reason(error: BaseException) -> str:
    """The cause of a failed export, and the line of the method that it comes from; one sentence."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = describe(cause).split("For more information")[0].split("Caused by")[0].strip()
    places = []
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "torch" not in Path(file).parts and Path(file) != Path(__file__):
            places.append(f"{Path(file).name}, line {trace.tb_lineno}")
        trace = trace.tb_next
    return f"{text} ({places[-1]})." if places else f"{text}."


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and messages of the exporters, which are about torch's own code."""
    names = ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
