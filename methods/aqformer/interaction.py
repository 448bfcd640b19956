"""Audio-Bridged Temporal Interaction, ABTI (section 3.4)."""

from __future__ import annotations

from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention

from .options import Options
from .pixel_decoder import AUDIO_DIM


class AudioBridgedInteraction(nn.Module):
    """Temporal interaction of sounding objects in three steps: gather, interact, remap.

    The softmax of equation 9 runs over the pixels of one frame. ``f_m`` has no bias, which would shift the
    logits of all pixels equally.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim, inner = options.dim, options.abti_dim
        self.sound = nn.Linear(AUDIO_DIM, inner)  # f_a
        self.match = nn.Linear(dim, inner, bias=False)  # f_m
        self.collect = nn.Linear(dim, inner)  # f_n
        self.interact = Attention(inner, options.heads)
        self.spread = nn.Linear(inner, dim)  # f_o
        self.relative = options.remap == "peak"

    def forward(self, maps: Tensor, audio: Tensor, valid: Tensor) -> Tensor:
        """Update the maps with object features of other frames; padded frames stay zero.

        Args:
            maps: ``F`` (B,T,dim,h,w), zeros in padded frames.
            audio: (B,T,128), finite.
            valid: (B,T) bool.

        Returns:
            (B,T,dim,h,w), equation 12.
        """
        pixels = maps.flatten(3)  # (B,T,dim,P)
        weights = self.gather_weights(pixels, audio)
        # f_n is linear and the weights sum to 1: the weighted mean is projected instead of every pixel.
        objects = self.collect(weights @ pixels.mT)  # equation 10, (B,q,p,C_b)

        both = valid[:, :, None] & valid[:, None]  # (B,q,p)
        updated = self.exchange(objects, both)

        spread = self.spread(updated) * both[..., None]
        if self.relative:
            # The largest weight of a map of P pixels is about 1/P: without the division the update of a
            # pixel, and the gradient of this module, are P times smaller than the map and its gradient.
            weights = weights / weights.amax(dim=-1, keepdim=True)
        added = spread.mT @ weights  # equations 11 and 12: the sum over p of S_pq^T f_o(O_pq)
        return maps + added.view(maps.shape)

    def gather_weights(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Return equation 9: attention from the audio of frame p to the pixels of frame q.

        Args:
            pixels: (B,T,dim,P).
            audio: (B,T,128).

        Returns:
            ``S`` (B,q,p,P), normalised over P.
        """
        # The audio is projected onto the pixels' channels, which is cheaper than projecting the pixels.
        sounds = self.sound(audio) @ self.match.weight  # (B,p,dim)
        return (sounds[:, None] @ pixels).softmax(dim=-1)

    def exchange(self, objects: Tensor, valid: Tensor) -> Tensor:
        """Apply self-attention among all T x T object features of a clip.

        Args:
            objects: (B,q,p,C_b).
            valid: (B,q,p) bool; others are not attended to.
        """
        sequence = objects.flatten(1, 2)
        mask = None if valid.all() else key_mask(valid.flatten(1))
        updated: Tensor = self.interact(sequence, mask=mask)
        return updated.view(objects.shape)


def key_mask(valid: Tensor) -> Tensor:
    """Return the attention mask (B,1,1,S) of keys (B,S), true for valid ones.

    Rows without valid keys are all true: a softmax over nothing is NaN, and their result is unused.
    """
    return (valid | ~valid.any(dim=1, keepdim=True))[:, None, None]
