"""How the ways of scoring fared against each other where none of them was taught."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class HeldOut(BaseModel):
    """Means over queries that taught nothing, for ways of scoring that read the same prompts of
    one model; ``scoring="auto"`` goes by them. Higher is better.

    Attributes:
        measure: what the figures are, 0 to 1.
        attention, mixed: of the heads as they were taught on the other queries; None: not measured.
        likelihood: of the query likelihood, which is not taught; None: not measured.
        queries: how many the means are over.
        groups: how many whole domains were left out in turn; 0: queries of the same domains were
            left out, cross-validated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str = Field("nDCG@10", min_length=1)
    attention: float | None = Field(None, ge=0, le=1)
    mixed: float | None = Field(None, ge=0, le=1)
    likelihood: float | None = Field(None, ge=0, le=1)
    queries: int = Field(ge=1)
    groups: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> HeldOut:
        if not self.figures():
            raise ValueError("no figure; give attention, mixed or likelihood, or no held_out")
        if self.groups == 1:
            raise ValueError("groups=1; with one domain left out none taught: 0, or 2 and more")
        return self

    def figures(self) -> dict[str, float]:
        """Way of scoring -> its figure, where there is one, the cheapest first."""
        found = {
            "attention": self.attention,
            "likelihood": self.likelihood,
            "mixed": self.mixed,
        }
        return {name: value for name, value in found.items() if value is not None}
