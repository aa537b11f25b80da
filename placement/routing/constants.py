"""Constants of the routing synthesizer, and how they were fitted: to three recorded traces (docs/routing.md).

`strength` by a scan, means over four seeds; the others by hand before that, each to the figure named beside it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    """Constants of the latent-topic model of placement.routing.synthesize. Logits are in units of the Gumbel noise.

    Attributes:
        strength: logit that an expert of the token's topic gains at co-activation 1. Fitted: distinct nodes per token
            of a placement that only co-locates, 4 nodes x 16 experts, on held-out sequences: 2.44.
        strength_spread: relative spread of the strength over layers (recorded: 2.44 has a deviation of 0.17).
        context_strength: share of `strength` that the topic of the passage adds to that of the token itself.
        topic_experts_per_k: experts that belong to a topic, in multiples of top-k.
        word_share: share of the noise's variance that is fixed for a word (recorded: a third to seven tenths of a
            layer's k-sets are distinct, and neighbouring tokens share twice as many experts as distant ones).
        words_per_topic, zipf_exponent: vocabulary of a topic and how fast its words become rare.
        stay: chance that the passage's topic goes on from one token to the next.
        follow: chance that a token's own topic is the passage's.
        sequence_concentration: of the Dirichlet mixture of topics of a sequence, in total over topics (recorded:
            loads of the two halves of a trace have a cosine of 0.97 to 0.998).
        skew_spread: deviation over layers of (max/mean load - 1), relative to its mean (recorded: 0.35).
        largest_share: no expert is asked to take more than this share of all tokens (recorded: at most 0.64).
    """

    strength: float = 2.3
    strength_spread: float = 0.15
    context_strength: float = 0.5
    topic_experts_per_k: float = 4 / 3
    word_share: float = 0.9
    words_per_topic: int = 64
    zipf_exponent: float = 1.0
    stay: float = 0.7
    follow: float = 0.5
    sequence_concentration: float = 10.0
    skew_spread: float = 0.35
    largest_share: float = 0.75


CALIBRATION = Calibration()
