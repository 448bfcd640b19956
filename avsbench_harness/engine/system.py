"""The module that is trained and predicts: a method's model behind its audio encoder."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.engine.contract import check_losses, check_prediction, check_values
from avsbench_harness.engine.load_weights import load_weights_strict, read_verified
from avsbench_harness.engine.run import Run
from avsbench_harness.errors import AvsbError
from avsbench_harness.nn.audio_encoder import build_audio_encoder
from avsbench_harness.nn.model import Model, ParamGroup, evaluation_mode
from avsbench_harness.recipe.schema import Recipe

#: Factor on the images in the second prediction of :meth:`System.check_predict`.
CONTRAST = 100.0


class System(nn.Module):
    """A model, and the audio encoder that is trained with it, if any.

    Without an encoder, batches hold embeddings; with one they hold log-mel examples. Losses and predictions
    that break the contract of :class:`Model` are refused, see :mod:`.contract`.

    Args:
        model: the method's network.
        encoder: the audio encoder, if it is trained.
        name: of the method, for errors; by default that of the network's class.
    """

    def __init__(self, model: Model, encoder: nn.Module | None, name: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.name = name or type(model).__name__.removesuffix("Model")

    def embed(self, batch: Batch) -> Batch:
        """The batch with (B,T,128) embeddings; those of padded frames are zero.

        Separated sources, (B,T,S,1,96,64), become (B,T,S,128).
        """
        if self.encoder is None:
            return batch
        places = batch.audio.shape[:-3]  # B, T, and S where sources are separated
        embeddings: Tensor = self.encoder(batch.audio.flatten(0, -4))
        valid = batch.valid_frames().view(*places[:2], *(1 for _ in places[1:]))
        return batch.with_audio(embeddings.view(*places, -1) * valid)

    def forward(self, batch: Batch) -> dict[str, Tensor] | Tensor:
        """The losses in training mode, else the prediction; this is what is compiled and distributed."""
        return self.losses(batch) if self.training else self.model.predict(self.embed(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The model's weighted loss terms; their sum has a gradient.

        The losses of a batch of padded frames only may be constants. A process with such a batch still needs
        a zero gradient, which the others wait for.
        """
        terms = check_losses(self.model.losses(self.embed(batch)), batch, self.name)
        if torch.is_grad_enabled() and not any(term.requires_grad for term in terms.values()):
            name = next(iter(terms))
            trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
            terms[name] = terms[name] + sum(0 * parameter.sum() for parameter in trainable)
        return terms

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The model's prediction in evaluation mode, see :meth:`Model.predict`."""
        with evaluation_mode(self):
            return check_prediction(self(batch), batch, self.model.task, self.name).detach()

    @torch.no_grad()
    def check_predict(self, batch: Batch) -> None:
        """Refuse a model whose prediction for a batch has wrong values, a wrong shape or type.

        Logits of an untrained network may lie in [0, 1] by chance, so images with a large contrast are
        predicted too; these may overflow. The compiled module is not used: a short run may never need it.
        """
        task, valid = self.model.task, batch.valid_frames()
        batch = self.embed(batch)
        with evaluation_mode(self):
            found = check_prediction(self.model.predict(batch), batch, task, self.name)[valid]
            check_values(found, task, self.name, where="the first batch")
            found = self.model.predict(replace(batch, images=CONTRAST * batch.images, features={}))[valid]
            if any(part.training for part in self.model.modules()):
                raise AvsbError(f"`predict` of {self.name} sets the training mode; remove train() from it.")
        check_values(found.nan_to_num(nan=0.5), task, self.name, where="the first batch with more contrast")

    def param_groups(self, recipe: Recipe) -> list[ParamGroup]:
        """The model's parameter groups, and one for the audio encoder."""
        groups = self.model.param_groups(recipe)
        if self.encoder is not None:
            groups.append(ParamGroup("audio encoder", list(self.encoder.parameters())))
        return groups


def build_system(run: Run, *, pretrained: bool) -> System:
    """The run's system, initialised from its seed.

    Args:
        run: the run.
        pretrained: load the weights that the spec names: pretrained encoders, and those of ``init``.
    """
    torch.manual_seed(run.spec.seed)
    model = run.build_model(pretrained=pretrained)
    encoder = None
    if run.spec.audio.trained:
        encoder = build_audio_encoder(
            run.spec.audio.encoder, run.weights.get("audio") if pretrained else None
        )
    system = System(model, encoder, run.spec.method)
    if pretrained and run.spec.init is not None:
        state = read_verified(run.weights["init"], run.spec.init)
        load_weights_strict(system, state, run.recipe.init_skip)
    return system


def autocast(precision: str, device: str) -> torch.autocast:
    """Mixed precision (``fp32``, ``bf16`` or ``fp16``) as a context for a device."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    kind = device.split(":")[0]
    return torch.autocast(kind, dtype=dtypes[precision], enabled=precision != "fp32")


def set_determinism(run: Run) -> None:
    """Seed torch and select deterministic cuDNN algorithms."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(run.spec.seed)
