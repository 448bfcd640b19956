"""QDFormer's network, from the paper: Figure 3 and sections 3.2 to 3.5."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from avsbench_harness.data.batch import Batch
from avsbench_harness.errors import UsageError
from avsbench_harness.nn.backbone import build_backbone
from avsbench_harness.nn.frames import restore_frames
from avsbench_harness.nn.model import Model, ParamGroup
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import Task

from .decomposition import Recombination, SemanticDecoder, new_prototypes
from .encoders import Fusion, VisualEncoder, attendable, time_positions
from .loss import resize, set_losses
from .mask_decoder import FramePredictions, MaskDecoder
from .options import Options
from .quantization import QuantizedTokens, Quantizer, quantization_losses
from .targets import clip_objects

#: Channels of a VGGish embedding.
AUDIO_DIM = 128
#: Stride of the coarsest feature map: the sides of an image must be multiples of it.
STRIDE = 32


@dataclass(frozen=True)
class QDFormerOutput:
    """Raw outputs; padded frames, and clips without valid frames, are zero.

    Q queries: the N tokens, or N per source with separated sources. C classes: 1 (sound) for s4 and ms3, the
    70 classes without background for avss.

    Attributes:
        class_logits: (B,T,Q,C), before the sigmoid.
        boxes: (B,T,Q,4) in [0, 1]: centre x, centre y, width, height.
        mask_logits: (B,T,Q,H/4,W/4), before the sigmoid.
        clip_tokens: (B,N,dim) ``g_i``; without decomposition (B,S,dim), the mean of ``F'_a`` over the frames.
        clip_codes: (B,N,dim) ``VQ(g_i)``, ``None`` without quantisation; ``g_i`` before it starts.
        frame_tokens: (B,T,N,dim) ``l_{i,t}``, ``None`` without calibration.
        frame_codes: (B,T,N,dim) ``VQ(l_{i,t})``, ``None`` without calibration or quantisation.
        auxiliary: predictions of the earlier layers of the mask decoder, for their losses only.
    """

    class_logits: Tensor
    boxes: Tensor
    mask_logits: Tensor
    clip_tokens: Tensor
    clip_codes: Tensor | None
    frame_tokens: Tensor | None
    frame_codes: Tensor | None
    auxiliary: tuple[FramePredictions, ...] = ()

    @property
    def layers(self) -> tuple[FramePredictions, ...]:
        """The predictions of each layer that has losses, (B,T,...); those of the last layer first."""
        return (FramePredictions(self.class_logits, self.boxes, self.mask_logits), *self.auxiliary)


class QDFormerModel(Model):
    """QDFormer (Li et al., CVPR 2024); the model card lists the choices that the paper leaves open."""

    quantizer: Quantizer | None

    def __init__(self, task: Task, backbone: str, options: Options) -> None:
        """Initialise with random weights.

        Args:
            task: determines the number of classes and the definition of an object.
            backbone: ``r50``, ``pvt``, ``swin_t`` or a timm name.
            options: see :class:`.options.Options`.
        """
        super().__init__()
        self.task = task
        self.options = options
        self.backbone = build_backbone(
            backbone, pretrained=options.pretrained, drop_path_rate=options.drop_path_rate
        )
        *finer, coarsest = self.backbone.channels
        self.visual_encoder = VisualEncoder(coarsest, options)
        self.audio_projection = nn.Sequential(nn.Linear(AUDIO_DIM, options.dim), nn.LayerNorm(options.dim))
        audio = options.model_copy(update={"dropout": options.audio_dropout})
        self.fusion = Fusion(audio)
        decomposed = options.decomposition != "none"
        self.prototypes = new_prototypes(options) if decomposed else None
        self.global_decoder = SemanticDecoder(audio) if decomposed else None
        self.local_decoder = SemanticDecoder(audio) if options.calibration else None
        if self.global_decoder and self.local_decoder and options.local_init == "global":
            self.local_decoder.load_state_dict(self.global_decoder.state_dict())
        own = options.calibration and not options.shared_prototypes
        self.local_prototypes = new_prototypes(options) if own else None
        self.quantizer = Quantizer(options) if options.quantized else None
        self.recombination = Recombination(options) if options.recombination else None
        classes = task.channels - 1 if task.semantic else 1
        self.mask_decoder = MaskDecoder(finer, classes, options)

    def forward(self, batch: Batch, *, auxiliary: bool = False) -> QDFormerOutput:
        """Return the predictions of all tokens in every frame, and the tokens.

        Args:
            batch: the clips.
            auxiliary: also return the predictions of the earlier layers of the mask decoder.

        Raises:
            UsageError: the sides of the images are not multiples of 32, or separated sources are given to
                a network that decomposes the audio itself.
        """
        self.check_sides(batch, STRIDE)
        valid = batch.valid_frames()
        audio = self._audio(batch, valid)  # (B,T,S,dim)
        if not valid.any():
            if self.training and self.quantizer is not None:  # a collective: other processes have frames
                none = audio.new_zeros(0, self.options.tokens, self.options.dim)
                self.quantizer.update(none, none if self.options.calibration else None)
            return self._without_frames(batch, audio)
        *finer, coarsest = self.maps(batch, valid)
        video = batch.once("visual encoder", lambda: self.visual_encoder(coarsest))  # (F,dim,h,w)
        clip = valid.nonzero()[:, 0]  # of each of the F frames

        fused = self._fuse(audio, video, valid)
        tokens = self._clip_tokens(fused, valid)
        local = None if self.local_decoder is None else self._frame_tokens(audio[valid])
        if self.training and self.quantizer is not None:
            self.quantizer.update(tokens[valid.any(dim=1)], local)
        codes, quantized = self._quantize(tokens)
        if self.recombination is not None:
            source = tokens if self.options.filter_tokens == "continuous" else quantized
            video = self.recombination(source[clip], video)

        local_codes = None
        if self.options.decomposition == "none":
            queries = fused[valid].repeat_interleave(self.options.tokens, dim=1)
        elif local is None:
            queries = quantized[clip]
        else:
            local_codes, queries = self._quantize(local)
        *earlier, last = (
            FramePredictions(
                restore_frames(predicted.class_logits, valid),
                restore_frames(predicted.boxes, valid),
                restore_frames(predicted.mask_logits, valid),
            )
            for predicted in self.mask_decoder(queries, video, finer, auxiliary=auxiliary)
        )
        return QDFormerOutput(
            class_logits=last.class_logits,
            boxes=last.boxes,
            mask_logits=last.mask_logits,
            clip_tokens=tokens,
            clip_codes=None if codes is None else codes * valid.any(dim=1)[:, None, None],
            frame_tokens=None if local is None else restore_frames(local, valid),
            frame_codes=None if local_codes is None else restore_frames(local_codes, valid),
            auxiliary=tuple(earlier),
        )

    def predict(self, batch: Batch) -> Tensor:
        """Return probabilities of sound (B,T,H,W), or class scores (B,T,71,H,W); padded frames are zero.

        The score of a class at a pixel is the product of class and mask probability, and the most confident
        query wins. A pixel sounds if its score reaches ``score_threshold``: for s4 and ms3 the score is
        mapped such that the threshold becomes 1/2, for avss the threshold is the background's score.
        """
        output: QDFormerOutput = self(batch)
        valid = batch.valid_frames()
        size = (batch.shape[2], batch.shape[3])
        threshold = self.options.score_threshold
        classes = output.class_logits[valid].float().sigmoid()  # (F,Q,C)
        masks = resize(output.mask_logits[valid].float(), size).sigmoid()  # (F,Q,H,W)
        best = masks.new_zeros(len(masks), classes.shape[-1], *size)
        for query in range(classes.shape[1]):
            scores = classes[:, query, :, None, None] * masks[:, query, None]
            best = torch.maximum(best, scores)
        if self.task.semantic:
            background = torch.full_like(best[:, :1], threshold)
            return restore_frames(torch.cat([background, best], dim=1), valid)
        odds = best[:, 0] * (1 - threshold)
        return restore_frames(odds / (odds + (1 - best[:, 0]) * threshold), valid)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of equation 8, which are those of equations 9 and 10.

        ``codebook``, ``commit_global`` and ``commit_local`` if tokens are quantised, over all valid frames;
        ``mask_bce``, ``mask_dice``, ``class``, ``box_l1`` and ``box_giou`` over annotated frames, with
        ``auxiliary_losses`` summed over the layers of the mask decoder, each with an assignment of its own.
        """
        truth, annotated = batch.ground_truth(), batch.annotated_frames()
        output: QDFormerOutput = self(batch, auxiliary=self.options.auxiliary_losses)
        losses = self._quantization_losses(output, batch.valid_frames())
        places = [(index, frames) for index, frames in enumerate(annotated) if frames.any()]
        if not places:
            zero = output.mask_logits.sum() * 0.0
            names = ("mask_bce", "mask_dice", "class", "box_l1", "box_giou")
            return {**losses, **dict.fromkeys(names, zero)}
        objects = [clip_objects(truth[place]) for place in places]
        of_layers = [
            set_losses([layer.select(place) for place in places], objects, self.options)
            for layer in output.layers
        ]
        for name in of_layers[0]:
            losses[name] = torch.stack([terms[name] for terms in of_layers]).sum()
        return losses

    def loss_counts(self, batch: Batch) -> dict[str, Tensor | None]:
        """Return the number of clips (quantisation) and of matched objects (masks, boxes and classes).

        In clips with more objects than queries, the matched ones are not known here; their boxes and classes
        are counted as if all were matched.
        """
        truth, annotated = batch.ground_truth(), batch.annotated_frames()
        queries = self.options.tokens * (batch.audio.shape[2] if batch.audio.dim() == 4 else 1)
        masks = boxes = torch.zeros((), device=truth.device)
        for clip, frames in zip(truth, annotated, strict=True):
            objects = clip_objects(clip[frames])
            masks = masks + min(queries, len(objects.labels)) * frames.sum()
            boxes = boxes + objects.present.sum()
        clips = batch.valid_frames().any(dim=1).sum()
        return {
            **dict.fromkeys(("codebook", "commit_global", "commit_local"), clips),
            **dict.fromkeys(("mask_bce", "mask_dice"), masks),
            **dict.fromkeys(("class", "box_l1", "box_giou"), boxes),
        }

    def param_groups(self, recipe: Recipe) -> list[ParamGroup]:
        """Return the default groups, and one for the codebook if it has its own learning rate."""
        groups = super().param_groups(recipe)
        scale = self.options.codebook_lr_scale
        if scale is None or self.quantizer is None or self.options.averaged:
            return groups
        codebook = self.quantizer.get_parameter("codebook")
        rest = [
            replace(group, params=[parameter for parameter in group.params if parameter is not codebook])
            for group in groups
        ]
        return [*rest, ParamGroup("codebook", [codebook], lr_scale=scale, weight_decay=0.0)]

    def diagnostics(self) -> dict[str, float]:
        """Return the usage of the codebook, see :meth:`.quantization.Quantizer.diagnostics`."""
        return {} if self.quantizer is None else self.quantizer.diagnostics()

    def audio_tokens(self, batch: Batch) -> Tensor:
        """Return the audio of each clip as N tokens ``g_i`` before quantisation, (B,N,dim); see Figure 6.

        Without decomposition there is one token, the fused audio averaged over the frames.
        """
        output: QDFormerOutput = self(batch)
        return output.clip_tokens

    def _audio(self, batch: Batch, valid: Tensor) -> Tensor:
        """Return ``F_a`` (B,T,S,dim): S separated sources, or the unseparated audio (S = 1)."""
        audio = batch.audio if batch.audio.dim() == 4 else batch.audio[:, :, None]
        if audio.shape[2] > 1 and self.options.decomposition != "none":
            raise UsageError(
                "The audio is separated into sources (the recipe's audio.separator), which QDFormer supports "
                "with options.decomposition=none only."
            )
        projected: Tensor = self.audio_projection(torch.where(valid[..., None, None], audio, 0.0))
        return projected

    def _fuse(self, audio: Tensor, video: Tensor, valid: Tensor) -> Tensor:
        """Apply equation 3 to every source: (B,T,S,dim) and F valid frames (F,dim,h,w) to (B,T,S,dim)."""
        sources = audio.shape[2]
        maps = restore_frames(video, valid).repeat_interleave(sources, dim=0)
        sounds = audio.transpose(1, 2).flatten(0, 1)
        fused: Tensor = self.fusion(sounds, maps, valid.repeat_interleave(sources, dim=0))
        return fused.unflatten(0, (-1, sources)).transpose(1, 2)

    def _clip_tokens(self, fused: Tensor, valid: Tensor) -> Tensor:
        """Return ``g_i`` (B,N,dim) of the fused audio (B,T,S,dim) (equation 4); 0 without valid frames."""
        if self.global_decoder is None or self.prototypes is None:
            weight = valid[..., None, None].to(fused.dtype)
            return (fused * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        times = time_positions(fused.shape[1], fused)
        tokens = self.global_decoder(
            self.prototypes.repeat(len(fused), 1, 1), fused[:, :, 0], times, attendable(valid)
        )
        return torch.where(valid.any(dim=1)[:, None, None], tokens, 0.0)

    def _frame_tokens(self, audio: Tensor) -> Tensor:
        """Return ``l_{i,t}`` (F,N,dim) of the audio of F frames (F,1,dim) (equation 6)."""
        assert self.local_decoder is not None
        prototypes = self.prototypes if self.local_prototypes is None else self.local_prototypes
        assert prototypes is not None
        tokens: Tensor = self.local_decoder(prototypes.repeat(len(audio), 1, 1), audio)
        return tokens

    def _quantize(self, tokens: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return ``VQ`` of the tokens, and the same values with a straight-through gradient (equation 2).

        Without quantisation these are ``None`` and the tokens.
        """
        return (None, tokens) if self.quantizer is None else self.quantizer(tokens)

    def _quantization_losses(self, output: QDFormerOutput, valid: Tensor) -> dict[str, Tensor]:
        if output.clip_codes is None:
            return {}
        nonempty = valid.any(dim=1)
        clip = QuantizedTokens(output.clip_tokens[nonempty], output.clip_codes[nonempty])
        frames = None
        if output.frame_tokens is not None and output.frame_codes is not None:
            frames = QuantizedTokens(output.frame_tokens[valid], output.frame_codes[valid])
        terms = quantization_losses(clip, frames, self.options)
        return {name: self.options.quant_weight * term for name, term in terms.items()}

    def _without_frames(self, batch: Batch, audio: Tensor) -> QDFormerOutput:
        """Return the output for a batch without valid frames: zeros with a gradient for every parameter."""
        clips, frames, height, width = batch.shape
        zero = self.zero_loss()
        queries, dim = self.options.tokens * audio.shape[2], self.options.dim
        tokens = self.options.tokens if self.options.decomposition != "none" else audio.shape[2]
        classes = self.task.channels - 1 if self.task.semantic else 1
        local = zero.expand(clips, frames, tokens, dim) if self.options.calibration else None
        return QDFormerOutput(
            class_logits=zero.expand(clips, frames, queries, classes),
            boxes=zero.expand(clips, frames, queries, 4),
            mask_logits=zero.expand(clips, frames, queries, height // 4, width // 4),
            clip_tokens=zero.expand(clips, tokens, dim),
            clip_codes=zero.expand(clips, tokens, dim) if self.options.quantized else None,
            frame_tokens=local,
            frame_codes=local if self.options.quantized else None,
        )
