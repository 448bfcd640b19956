"""Build options of MyMethod. Imports no torch."""

from pydantic import Field, NonNegativeFloat, PositiveInt

from avsbench_harness.recipe.options import BuildOptions


class Options(BuildOptions):
    """Build options of MyMethod."""

    method = "my_method"

    dim: PositiveInt = Field(64, description="channels of the feature maps")
    dice_weight: NonNegativeFloat = Field(1.0, allow_inf_nan=False, description="weight of Dice (s4, ms3)")
