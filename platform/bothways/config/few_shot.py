"""How a model is prepared for tasks of a few rows, and judged by them: the `few_shot:` section of a pipeline file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bothways.config.optim import Optim
from bothways.config.strict import Config, Count
from bothways.registry import META, TRAINABLES, unless

if TYPE_CHECKING:
    Meta = Any
    Trainable = Any
else:
    Meta, Trainable = META.field, TRAINABLES.field

ArmName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
Rate = Annotated[float, Field(gt=0.0)]


class Classes(Config):
    """Which classes the model is meta-trained on, and which others it is judged by: names, or how many.

    `train`: of so many, the commonest. `test`: of so many, the rarest that have rows enough for an episode (null: all
    of those that are not meta-trained on).
    """

    train: Count | tuple[str, ...]
    test: Count | tuple[str, ...] | None = None


class Episodes(Config):
    """What an episode is: `ways` classes, numbered anew, with `shots` rows each to learn from (the support) and
    `queries` other rows each to be judged by; and how a model adapts to it, by `adapt_steps` steps of gradient descent
    on the support.

    `adapt_lr`: their learning rate; `adapt_head_lr`: of the last linear layer (null: the same). That layer begins each
    episode anew: at `zero`, which favours no class, or from the `prototypes` of the support: with c_k the mean of the
    features of class k, its weights are 2 c_k and its bias is -|c_k|^2, so that its classes are those of the nearest
    mean (proto-MAML, Triantafillou et al. 2020). With one shot a row is its own prototype, which leaves the steps
    little to learn. `adapt`: which parameters the steps move.
    `batch`: episodes of an outer step. `test`: episodes that judge, the same for all arms and seeds.
    """

    ways: Annotated[int, Field(ge=2)] = 5
    shots: Count = 5
    queries: Count = 10
    adapt_steps: Annotated[int, Field(ge=0)] = 5
    adapt_lr: Rate = 0.01
    adapt_head_lr: Rate | None = None
    head: Literal["zero", "prototypes"] = "prototypes"
    adapt: Annotated[Trainable, Field(validate_default=True)] = {"name": "full"}  # noqa: RUF012 (pydantic copies it)
    batch: Count = 4
    test: Count = 100


class Arm(Config):
    """One way to meta-train. `optim`: its outer loop's, where it is not to be `experiment.optim`."""

    meta: Meta
    optim: Annotated[Optim | None, unless(None)] = None


class FewShot(Config):
    """Meta-training on episodes of some classes, judged by episodes of classes that it never saw.

    `classes`: which are which; null: all of them are both, and the episodes of meta-training are of the domains of
    `data.mix`, those that judge of the data's own. `arms`: by name; the first is what the others are compared with.
    `seeds`: every arm is meta-trained with so many, from `experiment.seed` on. An outer loop is `optim.steps` steps,
    each of `episodes.batch` episodes.
    """

    classes: Classes | None = None
    episodes: Episodes = Episodes()
    arms: dict[ArmName, Arm]
    seeds: Count = 5

    @field_validator("arms")
    @classmethod
    def _has_some(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        if not arms:
            raise ValueError("needs at least one, such as {plain: {meta: none}}")
        return arms

    @model_validator(mode="after")
    def _learns_something(self) -> FewShot:
        if not self.episodes.adapt_steps and self.episodes.head == "zero":
            raise ValueError("adapt_steps 0 with head zero learns nothing of an episode: take prototypes, or a step")
        return self


MaybeFewShot = Annotated[FewShot | None, unless(None)]
