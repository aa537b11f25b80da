"""How each family's configs are read: a file a family, or a few that are alike. `ALL` is the table."""

from specs.huggingface.architecture import Family
from specs.huggingface.families import (
    bailing,
    deepseek,
    deepseek_v4,
    ernie,
    gemma4,
    glm,
    gpt_oss,
    granite,
    hunyuan,
    hybrids,
    kimi_linear,
    llama4,
    longcat,
    minimax,
    mixtral,
    qwen,
    step,
    windowed,
)

ALL: tuple[Family, ...] = tuple(
    family
    for module in (
        bailing,
        deepseek,
        deepseek_v4,
        ernie,
        gemma4,
        glm,
        gpt_oss,
        granite,
        hunyuan,
        hybrids,
        kimi_linear,
        llama4,
        longcat,
        minimax,
        mixtral,
        qwen,
        step,
        windowed,
    )
    for family in module.FAMILIES
)
