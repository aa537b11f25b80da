"""What a plan must know of a serving engine: which copy serves a token, what messages carry, what the engine loads.

Facts stand in catalog/engines, one file an engine and version, each with the place where it was read. What a rule means
is in placement.problem.engine_rules.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.fields import Count, DataType, Degree, Flag, Name, Positive, Spec, Text

Dispatch = Literal["even", "nearest", "planned", "token_hash", "sglang_static", "sglang_dynamic"]


MessageRule = Literal["per_expert", "per_rank", "per_node", "dense"]


#: "none": dispatch, experts and combine one after the other; "two_batch": two half-batches hide each other.
Overlap = Literal["none", "two_batch"]


#: Engines that the cost model's constants were fitted to measurements of.
Measured = Literal["vllm", "sglang", "trtllm"]


RuleName = Literal[
    "ep_all_or_one",
    "ep_all",
    "ep_sizes",
    "ep_at_most",
    "ep_whole_nodes",
    "experts_divide",
    "tp_or_dp",
    "attention_whole",
    "several_attention_ranks",
    "one_node",
    "one_stage",
    "one_stage_with_states",
    "top_k_at_most",
    "replicas_need_ep",
    "replicas_need_attention_dp",
]


#: Rules that look beyond the degrees of one stage.
OF_INSTANCES: frozenset[RuleName] = frozenset(
    {"one_stage", "one_stage_with_states", "replicas_need_ep", "replicas_need_attention_dp"}
)

#: Rules that compare with numbers.
SIZED: frozenset[RuleName] = frozenset({"ep_sizes", "ep_at_most", "ep_whole_nodes", "top_k_at_most"})


class Rule(Spec):
    """One condition on a split's degrees or slots."""

    name: RuleName
    """What it asks for; see placement.problem.engine_rules."""
    sizes: Annotated[tuple[Degree, ...], Field(max_length=64)] = ()
    """Numbers that it takes, such as the legal expert-parallel degrees."""
    phase: Literal["prefill", "decode"] | None = None
    """The phase whose kernels ask for it: instances that don't run it are free. None: all instances are bound."""
    source: Text
    """Where it stands in the engine's code or documentation."""

    @model_validator(mode="after")
    def _has_its_sizes(self) -> Rule:
        if (self.name in SIZED) != bool(self.sizes):
            raise ValueError(f"rule {self.name} {'needs' if self.name in SIZED else 'takes no'} sizes; mend its sizes")
        return self


class Backend(Spec):
    """One all-to-all backend of an engine."""

    prefill: MessageRule
    """What a token is sent once per in prefill."""
    decode: MessageRule
    """What a token is sent once per in decode."""
    dispatch: Annotated[tuple[Dispatch, ...], Field(min_length=1, max_length=3)]
    """Which copy of an expert can serve a token; the first is the default."""
    rules: Annotated[tuple[Rule, ...], Field(max_length=16)] = ()
    """What a split must fulfil, or the engine does not start."""
    dense_unless: Annotated[tuple[Rule, ...], Field(max_length=16)] = ()
    """What a stage must fulfil, or the engine gathers every token on every GPU instead."""
    quantizes: Flag = True
    """Dispatch carries the model's dispatch type; else 16 bits."""
    prefill_tokens: Annotated[Count, Field(json_schema_extra={"unit": "tokens"})] | None = None
    """Most tokens in a prefill pass, by `tokens_per`."""
    decode_tokens: Annotated[Count, Field(json_schema_extra={"unit": "tokens"})] | None = None
    """Most tokens in a decode step, by `tokens_per`."""
    tokens_per: Literal["gpu", "attention_rank"] = "gpu"
    """What the limits on tokens count."""
    tokens_switch: Text = ""
    """The flag or variable that sets the limits on tokens."""
    source: Text
    """Where these facts stand."""

    @model_validator(mode="after")
    def _kernels_are_of_a_stage(self) -> Backend:
        wrong = [rule.name for rule in self.dense_unless if rule.name in OF_INSTANCES or rule.phase is not None]
        if wrong:
            raise ValueError(f"dense_unless names {wrong[0]}, which is no rule of one stage; move it to rules")
        return self


class RoleRules(Spec):
    """What a split must fulfil in instances that only prefill, or only decode."""

    prefill: Annotated[tuple[Rule, ...], Field(max_length=16)] = ()
    """Of prefill instances."""
    decode: Annotated[tuple[Rule, ...], Field(max_length=16)] = ()
    """Of decode instances."""

    def of_role(self, role: str) -> tuple[Rule, ...]:
        """The rules of a role; none of one that does both."""
        return {"prefill": self.prefill, "decode": self.decode}.get(role, ())


class Reserve(Spec):
    """HBM of a GPU that weights, KV cache and what else the plan counts must leave."""

    share: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)] = 0.0
    """Share of the GPU's HBM."""
    gib: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, strict=True)] = 0.0
    """A fixed part."""
    gib_per_gpu: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False, strict=True)] = 0.0
    """A part for each GPU of an instance."""
    mib_per_prefill_token: Annotated[float, Field(ge=0, le=1e3, allow_inf_nan=False, strict=True)] = 0.0
    """A part for each token of an attention rank's prefill pass."""
    least_gib: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, strict=True)] = 0.0
    """The least of all parts together."""
    holds_activations: Flag = False
    """Activations and communication buffers lie inside it."""
    switch: Text = ""
    """The flag that sets it."""


class PrefillPass(Spec):
    """The engine's default for a prefill pass on GPUs of some size."""

    below_gib: Positive | None = None
    """GPUs of less HBM than this; unset: all others."""
    tokens: Annotated[Count, Field(json_schema_extra={"unit": "tokens"})]
    """Most tokens of an attention rank in a pass."""


class Runs(Spec):
    """What the engine multiplies experts in by default, where the model leaves it open."""

    experts: Annotated[tuple[DataType, ...], Field(min_length=1, max_length=16)]
    """Types of stored experts that it holds for."""
    generations: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    """Generations of GPUs that it holds for; none: all others."""
    compute: DataType
    """What it multiplies in."""
    source: Text
    """Where it stands in the engine's code or documentation."""


class Balancer(Spec):
    """The engine's own load balancer, where it takes DeepSeek's hierarchical policy if groups % OS nodes == 0."""

    switch: Text
    """What avoids the hierarchical policy."""
    source: Text
    """Where the rule stands."""


class Engine(Spec):
    """A serving engine of one version, with the all-to-all backend in use."""

    name: Name
    """What it is asked for by."""
    version: Text
    """The version whose facts these are."""
    summary: Text = ""
    """One line about it."""
    assumes: Text = ""
    """What is assumed rather than read, in one line; shown on every screen."""
    backend: Name
    """The all-to-all backend in use; in a file, the default."""
    backends: Annotated[dict[Name, Backend], Field(min_length=1, max_length=64)]
    """All-to-all backends by the engine's own names."""
    workloads: Annotated[tuple[Literal["serving", "training"], ...], Field(min_length=1)] = ("serving",)
    """What it runs."""
    overlaps: Annotated[tuple[Overlap, ...], Field(min_length=1)] = ("none",)
    """How messages and experts can overlap; the first is the default."""
    rules: Annotated[tuple[Rule, ...], Field(max_length=16)] = ()
    """What a split must fulfil under every backend."""
    role_rules: RoleRules = RoleRules()
    """What a split must fulfil besides in instances of one role: what its connectors of KV caches ask."""
    reserve: Reserve = Reserve()
    """HBM that it leaves or takes for itself."""
    sequences: Annotated[Count, Field(json_schema_extra={"unit": "sequences"})] | None = None
    """Most sequences of an attention rank."""
    prefill_passes: Annotated[tuple[PrefillPass, ...], Field(max_length=16)] = ()
    """Most tokens of a prefill pass by default; the first that fits the GPU counts. None: as the workload says."""
    kv_types: Annotated[tuple[DataType, ...], Field(min_length=1)] | None = None
    """Types that it stores a KV cache in; None: any."""
    shares_prompts: Literal["planned", "pinned", "never"] = "planned"
    """Whether attention ranks of a prefill instance share a prompt (context parallelism): where it pays, where the
    scenario pins it, or not at all."""
    runs: Annotated[tuple[Runs, ...], Field(max_length=32)] = ()
    """What it multiplies experts in; the first that holds counts."""
    cuda_graphs: Flag = True
    """Decode steps run as captured graphs; else the host launches kernel by kernel."""
    decode_prefix_cache: Flag = False
    """Instances that only decode keep a prefix cache: what they have of a prompt does not move to them."""
    static_map: Text = ""
    """How it loads a static expert map; empty where it loads none."""
    stage_cut: Text = ""
    """How it is told the layers of each stage."""
    balancer: Balancer | None = None
    """None: no hierarchical policy."""
    measured_as: Measured | None = None
    """The engine whose fitted constants it is priced with; None: the mean of all."""

    @model_validator(mode="after")
    def _backend_is_known(self) -> Engine:
        if self.backend not in self.backends:
            raise ValueError(f"backend {self.backend} is none of {', '.join(self.backends)}; name one of them")
        return self

    def compute(self, experts: DataType, generation: str | None) -> DataType | None:
        """What it multiplies experts of a stored type in, on a generation of GPUs; None: no default is known."""
        for each in self.runs:
            if experts in each.experts and (not each.generations or generation in each.generations):
                return each.compute
        return None

    @property
    def in_use(self) -> Backend:
        """The all-to-all backend in use."""
        return self.backends[self.backend]

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".rstrip()
