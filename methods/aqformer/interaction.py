"""Audio-Bridged Temporal Interaction, ABTI (section 3.4)."""

from __future__ import annotations

from torch import Tensor, nn

from avsbench_harness.nn.attention import Attention

from .options import Options
from .pixel_decoder import AUDIO_DIM


class AudioBridgedInteraction(nn.Module):
    """Frames exchange what belongs to the sounds, along three steps: gather, interact, remap.

    The softmax of equation 9 runs over the pixels of one frame. ``f_m`` has no bias, which would move the
    logits of all pixels alike.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        dim, inner = options.dim, options.abti_dim
        self.sound = nn.Linear(AUDIO_DIM, inner)  # f_a
        self.match = nn.Linear(dim, inner, bias=False)  # f_m
        self.collect = nn.Linear(dim, inner)  # f_n
        self.interact = Attention(inner, options.heads)
        self.spread = nn.Linear(inner, dim)  # f_o

    def forward(self, maps: Tensor, audio: Tensor, valid: Tensor) -> Tensor:
        """Maps with what other frames know of the sounding objects; zeros stay in missing frames.

        Args:
            maps: ``F`` (B,T,dim,h,w), zeros in frames that do not exist.
            audio: (B,T,128), finite.
            valid: (B,T) bool.

        Returns:
            (B,T,dim,h,w), equation 12.
        """
        pixels = maps.flatten(3)  # (B,T,dim,P)
        weights = self.gather_weights(pixels, audio)
        # f_n is linear and the weights sum to 1: the mean pixel is projected, instead of every pixel.
        objects = self.collect(weights @ pixels.mT)  # equation 10, (B,q,p,C_b)

        exist = valid[:, :, None] & valid[:, None]  # (B,q,p)
        updated = self.exchange(objects, exist)

        spread = self.spread(updated) * exist[..., None]
        added = spread.mT @ weights  # equations 11 and 12: the sum over p of S_pq^T f_o(O_pq)
        return maps + added.view(maps.shape)

    def gather_weights(self, pixels: Tensor, audio: Tensor) -> Tensor:
        """Equation 9: where in frame q that is which frame p sounds of.

        Args:
            pixels: (B,T,dim,P).
            audio: (B,T,128).

        Returns:
            ``S`` (B,q,p,P), each sum over P is 1.
        """
        # The sound goes back onto the pixels' channels, which costs less than projecting the pixels.
        sounds = self.sound(audio) @ self.match.weight  # (B,p,dim)
        return (sounds[:, None] @ pixels).softmax(dim=-1)

    def exchange(self, objects: Tensor, exist: Tensor) -> Tensor:
        """Self-attention among all T x T object features of a clip.

        Args:
            objects: (B,q,p,C_b).
            exist: (B,q,p) bool; others are not looked at.
        """
        sequence = objects.flatten(1, 2)
        mask = None if exist.all() else readable(exist.flatten(1))
        updated: Tensor = self.interact(sequence, mask=mask)
        return updated.view(objects.shape)


def readable(exist: Tensor) -> Tensor:
    """An attention mask (B,1,1,S) for keys (B,S), of which those that exist may be read.

    Where there are none, all may: a softmax over nothing is no number, and nobody reads the result.
    """
    return (exist | ~exist.any(dim=1, keepdim=True))[:, None, None]
