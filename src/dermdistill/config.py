"""Every setting, as frozen models: one a stage, held together by a ``Recipe``. Unknown keys are errors.

Each default stands here and nowhere else. Recipes are YAML files (``recipes/NAME.yaml``) that name only what differs.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dermdistill.labels import Task
from dermdistill.preprocess import PreprocessSpec, ResizeMode

Protocol = Literal["lesion", "published", "published-oversampled", "given"]
Artefact = Literal["hair", "ruler", "ink", "corners"]
TrackerName = Literal["tensorboard", "mlflow"]
LogitsLoss = Literal["kd", "dkd", "logit_std", "dist", "class_rebalanced"]


ExplainMethod = Literal["grad_cam", "score_cam", "lime"]


class Frozen(BaseModel):
    """Base of all settings: immutable, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class SyntheticConfig(Frozen):
    """The built-in generator of synthetic lesions, used where a run has no data folder."""

    lesions: int = Field(260, ge=21, le=1_000_000, description="number of lesions over all seven classes")
    seed: int = Field(0, ge=0)
    width: int = Field(160, ge=32, le=2048, description="pixels")
    height: int = Field(120, ge=32, le=2048, description="pixels")
    artefacts: tuple[Artefact, ...] = Field(("hair", "ruler", "ink", "corners"))


class DataConfig(Frozen):
    """Split and image size."""

    size: int = Field(64, ge=16, le=1024, description="side of the square input, pixels")
    resize: ResizeMode = "squash"
    protocol: Protocol = "lesion"
    seed: int = Field(42, ge=0, description="seed of the split")
    val_fraction: float = Field(0.15, gt=0, lt=0.5)
    test_fraction: float = Field(0.15, gt=0, lt=0.5)
    split_file: str | None = Field(None, description="image_id,split table for the protocol `given`")

    @model_validator(mode="after")
    def _given_needs_a_file(self) -> Self:
        if (self.protocol == "given") != (self.split_file is not None):
            raise ValueError("protocol 'given' and split_file go together: set both or neither")
        return self

    def preprocess(self, size: int | None = None) -> PreprocessSpec:
        """The preprocessing that these settings mean, or the same for another side of the input, pixels."""
        return PreprocessSpec(size=size or self.size, resize=self.resize)


class AugmentConfig(Frozen):
    """Random views of training images; each image has its own draw. Zero turns an operation off."""

    flip: bool = True
    rotate_degrees: float = Field(180.0, ge=0, le=180, description="rotation is uniform in +- this")
    scale: float = Field(0.2, ge=0, lt=1, description="zoom factor is log-uniform in 1/(1+s) to 1+s")
    shift: float = Field(0.08, ge=0, le=0.5, description="shift is uniform in +- this share of the side")
    brightness: float = Field(0.15, ge=0, lt=1)
    contrast: float = Field(0.2, ge=0, lt=1)
    saturation: float = Field(0.2, ge=0, lt=1)
    hue: float = Field(0.02, ge=0, le=0.5, description="hue turns by +- this share of the circle")
    blur: float = Field(0.1, ge=0, le=1, description="probability of a 3x3 Gaussian blur")
    cutout: float = Field(0.25, ge=0, le=1, description="probability of one grey square")
    cutout_size: float = Field(0.3, gt=0, le=1, description="largest side of that square, share of the image's")
    artefacts: float = Field(0.0, ge=0, le=1, description="probability of one drawn artefact; CPU work, see augment.py")
    mixup: float = Field(0.0, ge=0, le=1, description="probability of mixing with another training image")
    mixup_alpha: float = Field(0.4, gt=0, le=10, description="both parameters of mixup's beta distribution")


class BranchConfig(Frozen):
    """One backbone: any timm name, or ``small_cnn``."""

    backbone: str
    weights: str = Field("none", description="none | hub | offline | path of a .safetensors or .pth file")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of timm.create_model")
    stages: int | None = Field(
        None, ge=4, le=64, description="keep the first so many stages and no final convolution; None: all as it is"
    )


class ModelConfig(Frozen):
    """One or more branches with exits and layer fusion."""

    branches: tuple[BranchConfig, ...] = Field(min_length=1, max_length=4)
    exits: tuple[int, ...] = Field((1, 2), description="depths (0 is the shallowest of four) with an exit each")
    fusion: bool = Field(True, description="fuse pooled features of all branches and depths before the classifier")
    fusion_width: int = Field(256, ge=8, le=4096)
    dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _exits_are_depths(self) -> Self:
        if len(set(self.exits)) != len(self.exits) or not set(self.exits) <= {0, 1, 2, 3}:
            raise ValueError(f"exits {list(self.exits)}: each is a different depth of 0, 1, 2, 3")
        if len(self.branches) > 1 and not self.fusion:
            raise ValueError("several branches need fusion: set fusion=true, or keep one branch")
        return self


class OptimConfig(Frozen):
    """AdamW with warm-up and a cosine, clipping, weight averaging and early stopping."""

    epochs: int = Field(10, ge=1, le=10_000)
    batch_size: int = Field(64, ge=2, le=8192)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    backbone_factor: float = Field(1.0, gt=0, le=1, description="learning rate of pretrained branches, as a share")
    weight_decay: float = Field(0.02, ge=0, le=1)
    warmup_epochs: float = Field(1.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    average_decay: float = Field(0.99, ge=0, lt=1, description="decay a step of averaged weights; 0 is off")
    patience: int = Field(10, ge=1, description="epochs without a better validation figure before stopping")
    monitor: Literal["macro_auc", "balanced_accuracy", "melanoma_auc"] = "macro_auc"
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16-mixed on a GPU, 32-true elsewhere"
    )
    compile: bool = Field(False, description="torch.compile: for long trainings on a GPU; see docs/distillation.md")


class LossConfig(Frozen):
    """The classification loss. At most one remedy for class imbalance (EVIDENCE.md, section 4)."""

    logit_adjustment: float = Field(0.0, ge=0, le=2, description="tau of Menon et al. 2021; 0 is off")
    focal_gamma: float = Field(0.0, ge=0, le=10, description="Lin et al. 2017; 0 is off")
    focal_alpha: float | None = Field(None, gt=0, lt=1, description="weight of the melanoma class (binary task)")
    class_weights: bool = Field(False, description="weights inverse to class frequency, mean 1 over images")
    sampler: bool = Field(False, description="draw training images so that classes come equally often")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    exit_weight: float = Field(0.3, ge=0, le=10, description="weight of the mean loss of a teacher's exits")

    @model_validator(mode="after")
    def _one_remedy(self) -> Self:
        remedies = {
            "logit_adjustment": self.logit_adjustment > 0,
            "focal_gamma": self.focal_gamma > 0,
            "class_weights": self.class_weights,
            "sampler": self.sampler,
        }
        active = [name for name, on in remedies.items() if on]
        if len(active) > 1:
            raise ValueError(
                f"{' and '.join(active)} are stacked: each corrects for class imbalance; "
                "keep one and turn the others off"
            )
        if self.focal_alpha is not None and self.focal_gamma == 0:
            raise ValueError("focal_alpha needs focal_gamma > 0")
        return self


class StageDistillConfig(Frozen):
    """Weights and temperature of one student exit; they replace those that ``alpha`` would give it."""

    depth: int = Field(ge=0, le=3, description="depth of the exit")
    alpha: float = Field(0.0, ge=0, le=10, description="weight of matching the teacher's fused features")
    beta: float = Field(0.0, ge=0, le=10, description="weight of the logits of the teacher's exit at this depth")
    gamma: float = Field(0.0, ge=0, le=10, description="weight of the classification loss of the exit")
    temperature: float | None = Field(None, gt=0, le=100, description="None: that of the final logits")


class OtherTeacherConfig(Frozen):
    """One more teacher: the one that another run trained."""

    run: str = Field(description="its run folder; it must have kept this run's validation and test lesions unseen")
    weight: float = Field(1.0, gt=0, le=100)


class DistillConfig(Frozen):
    """Student objective: ``alpha * intermediate + beta * logits + gamma * classification``.

    Plain temperature-scaled distillation ``a * T^2 * KL + (1 - a) * classification`` is alpha 0, beta a, gamma 1 - a. A
    student without any teacher is alpha 0, beta 0, gamma 1.
    """

    alpha: float = Field(0.3, ge=0, le=10, description="weight of the intermediate terms (exits, features)")
    beta: float = Field(0.3, ge=0, le=10, description="weight of the logits loss between final logits")
    gamma: float = Field(0.4, ge=0, le=10, description="weight of the classification loss")
    temperature: float = Field(2.0, gt=0, le=100)
    feature_share: float = Field(0.5, ge=0, le=1, description="share of fused-feature matching in the intermediate")
    logits_loss: LogitsLoss = Field("kd", description="between the student's logits and a teacher's, also at exits")
    dkd_beta: float = Field(8.0, gt=0, le=100, description="weight of the non-target part of dkd")
    rebalance_beta: float = Field(0.999, ge=0, lt=1, description="of class_rebalanced: classes weigh by (1-b)/(1-b^n)")
    attention: float = Field(0.0, ge=0, le=1e5, description="weight of attention transfer at the exits and the end")
    relational: float = Field(0.0, ge=0, le=1e3, description="weight of relational distances and angles (1 : 2)")
    self_distillation: float = Field(0.0, ge=0, le=10, description="weight of exits learning from the own final logits")
    stages: tuple[StageDistillConfig, ...] = Field((), description="weights and temperature of single exits")
    balance: Literal["fixed", "gradient_norm"] = Field(
        "fixed", description="gradient_norm: rescale each epoch so that terms pull in proportion to their weights"
    )
    teacher_weight: float = Field(1.0, gt=0, le=100, description="weight of the run's own teacher among several")
    other_teachers: tuple[OtherTeacherConfig, ...] = ()
    targets: Literal["live", "stored"] = Field(
        "live", description="stored: what the teachers say is computed once, kept, and shared between runs"
    )

    @property
    def needs_teacher(self) -> bool:
        """Whether any term is computed from a teacher."""
        own = self.alpha + self.beta + self.attention + self.relational
        return own > 0 or any(stage.alpha + stage.beta > 0 for stage in self.stages)

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not self.needs_teacher and self.gamma == 0:
            raise ValueError("alpha, beta and gamma are all 0: nothing would be learnt")
        depths = [stage.depth for stage in self.stages]
        if len(set(depths)) != len(depths):
            raise ValueError(f"stages name depths {depths}: each depth at most once")
        runs = [other.run for other in self.other_teachers]
        if len(set(runs)) != len(runs) or "" in runs:
            raise ValueError(f"other_teachers name the runs {runs}: each a folder, at most once")
        if self.other_teachers and not self.needs_teacher:
            raise ValueError("other_teachers are named, but no term learns from a teacher: give one a weight")
        return self


class NetworkConfig(OptimConfig):
    """A network and how it is trained; the keys of ``OptimConfig`` stand beside its own (``teacher.epochs``)."""

    model: ModelConfig
    loss: LossConfig = LossConfig()


class TeacherConfig(NetworkConfig):
    """Teacher network and how it is trained."""

    size: int | None = Field(None, ge=16, le=1024, description="side of its input, pixels; None: that of the student")
    run: str | None = Field(None, description="folder of a run whose trained teacher is taken; see `run --teacher`")


class StudentConfig(NetworkConfig):
    """Student network, how it is trained and what it learns from the teacher."""

    distill: DistillConfig = DistillConfig()

    def alone(self) -> "StudentConfig":
        """The same deployed network taught by labels alone: no teacher, and no exits, which only it would use."""
        distill = DistillConfig(alpha=0.0, beta=0.0, gamma=1.0)
        model = self.model.model_copy(update={"exits": ()})
        return self.model_copy(update={"distill": distill, "model": model})


class GateConfig(Frozen):
    """What an exported file may lose on the test part, by its own runtime, against the PyTorch student in FP32."""

    macro_auc: float = Field(0.005, ge=0, le=1, description="largest loss")
    balanced_accuracy: float = Field(0.01, ge=0, le=1, description="largest loss")
    same_label: float = Field(0.99, ge=0, le=1, description="smallest share of images with the same label")


class CompressConfig(Frozen):
    """Exports of the student, their quantization, and what they may lose."""

    calibration_images: int = Field(512, ge=8, le=100_000, description="training images; never validation or test")
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    reduce_range: bool = Field(False, description="7-bit weights for CPUs without VNNI; costs accuracy elsewhere")
    float_layers: int = Field(
        4, ge=0, le=64, description="most sensitive layers that may stay in float; how many is chosen on validation"
    )
    sensitivity_images: int = Field(64, ge=2, le=4096, description="training images to rank layers by")
    qat_epochs: int = Field(0, ge=0, le=1000, description="quantization-aware training; 0 is off. Extra `mobile`")
    qat_learning_rate: float = Field(3e-5, gt=0, le=1, description="peak; a cosine to zero, no warm-up")
    mobile: bool = Field(False, description="ExecuTorch files for phones. Extra `mobile`")
    max_megabytes: float | None = Field(None, gt=0, description="largest INT8 file, of a million bytes each")
    gate: GateConfig = GateConfig()


class EvaluateConfig(Frozen):
    """Intervals, and what is measured beside the plain test images."""

    bootstrap_samples: int = Field(2000, ge=50, le=100_000)
    bootstrap_seed: int = Field(0, ge=0)
    calibration_bins: int = Field(15, ge=2, le=1000)
    latency_repeats: int = Field(200, ge=5, le=100_000)
    flips: bool = Field(False, description="also the INT8 student's average over an image and its three reflections")
    permutations: int = Field(1000, ge=50, le=100_000, description="of each test for a gap between subgroups")
    robustness_images: int = Field(200, ge=0, le=100_000, description="test images that are disturbed; 0 is off")
    not_skin_images: int = Field(700, ge=0, le=100_000, description="drawn images that show no skin; 0 is off")


class ExplainConfig(Frozen):
    """Heat maps in the report, and the tests of the methods that make them."""

    correct: int = Field(7, ge=0, le=200, description="right answers on test images to show, of every class")
    wrong: int = Field(7, ge=0, le=200, description="wrong ones, of every class the surest first")
    methods: tuple[ExplainMethod, ...] = Field(
        ("grad_cam", "score_cam", "lime"), min_length=1, description="the one to be shown first in front"
    )
    score_channels: int | None = Field(
        128, ge=1, le=100_000, description="of Score-CAM, those of largest spread; null: all, exact"
    )
    lime_samples: int = Field(1000, ge=2, le=1_000_000, description="of LIME an image; below 1,000 seeds hardly agree")
    scored_images: int = Field(24, ge=0, le=100_000, description="test images that methods are tested on; 0 is off")
    costly_images: int = Field(
        4, ge=1, le=100_000, description="of these for tests by many maps an image: noise, random weights, INT8, seeds"
    )

    @model_validator(mode="after")
    def _methods_once(self) -> Self:
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods {list(self.methods)}: each at most once")
        return self


class Recipe(Frozen):
    """A whole run: data to report."""

    name: str
    description: str = ""
    task: Task = "diagnosis"
    seed: int = Field(0, ge=0, description="seed of weights, order and augmentation")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0 is all cores. Weights depend on it")
    control: bool = Field(True, description="also train the student without a teacher: what distillation is judged by")
    tracking: tuple[TrackerName, ...] = Field((), description="also log epochs there; extras of the same names")
    data: DataConfig = DataConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    augment: AugmentConfig = AugmentConfig()
    teacher: TeacherConfig
    student: StudentConfig
    compress: CompressConfig = CompressConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    explain: ExplainConfig = ExplainConfig()

    @property
    def has_control(self) -> bool:
        """Whether a student without a teacher is trained and evaluated beside the distilled one."""
        return self.control and self.student.distill.needs_teacher

    @model_validator(mode="after")
    def _exits_fit(self) -> Self:
        distill, exits = self.student.distill, self.student.model.exits
        strangers = sorted({stage.depth for stage in distill.stages} - set(exits))
        if strangers:
            raise ValueError(f"student.distill.stages name depths {strangers}; the student's exits are {list(exits)}")
        named = {stage.depth: stage.beta > 0 for stage in distill.stages}
        derived = distill.alpha > 0 and distill.feature_share < 1
        taught = {depth for depth in exits if named.get(depth, derived)}
        missing = sorted(taught - set(self.teacher.model.exits))
        if missing:
            raise ValueError(
                f"student exits {missing} have no counterpart in the teacher's {list(self.teacher.model.exits)}: "
                "give the teacher these exits or set student.distill.alpha=0"
            )
        if derived and not exits:
            raise ValueError("student.distill.alpha > 0 needs student.model.exits, or feature_share=1")
        if distill.alpha > 0 and distill.feature_share == 0 and exits and set(exits) <= set(named):
            raise ValueError(
                "student.distill.alpha has no term left: stages name every exit and feature_share is 0; set alpha=0"
            )
        if distill.relational > 0 and self.student.batch_size < 3:
            raise ValueError("student.distill.relational needs student.batch_size of 3: an angle has three corners")
        if distill.self_distillation > 0 and not exits:
            raise ValueError("student.distill.self_distillation needs student.model.exits")
        return self

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        name, two = self.student.distill.logits_loss, self.task == "melanoma"
        if two and name in ("logit_std", "dkd"):
            what = "the z-scores of two logits are always +-0.71" if name == "logit_std" else "NCKD is exactly 0"
            raise ValueError(f"student.distill.logits_loss={name} with two classes: {what}; take kd")
        if name == "dkd" and (self.augment.mixup > 0 or self.student.loss.label_smoothing > 0):
            raise ValueError(
                "student.distill.logits_loss=dkd needs one true class an image: "
                "set augment.mixup=0 and student.loss.label_smoothing=0, or take another logits_loss"
            )
        if not two:
            for role, loss in (("teacher", self.teacher.loss), ("student", self.student.loss)):
                if loss.focal_alpha is not None:
                    raise ValueError(f"{role}.loss.focal_alpha is for the task 'melanoma' only")
        return self
