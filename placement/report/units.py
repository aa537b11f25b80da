"""Figures as people read them."""

from __future__ import annotations


def grouped(value: float, digits: int = 0) -> str:
    """A number with thousands separated."""
    return f"{value:,.{digits}f}"


def counted(count: int, noun: str) -> str:
    """`1 move`, `2 moves`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def or_dash(value: float | None, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def gb(size: float) -> str:
    """Bytes in GB (1e9), or in MB (1e6) where they are few."""
    if abs(size) < 1e7:
        return f"{size / 1e6:.2f} MB"
    return f"{size / 1e9:.2f} GB" if abs(size) < 1e10 else f"{size / 1e9:.1f} GB"


def kb(size: float) -> str:
    """Bytes in kB (1e3)."""
    return f"{size / 1e3:.2f}"


def us(value: float) -> str:
    """Microseconds with about four digits."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.1f}"
