"""Which student to take, from sizes and validation figures alone: the Pareto front, and the smallest that is enough."""

from collections.abc import Mapping


def pareto_front(sizes: Mapping[str, float], scores: Mapping[str, float]) -> list[str]:
    """Students to which no other is better in one of size and score and at least as good in the other.

    Args:
        sizes: {student: bytes}; smaller is better.
        scores: {student: figure}; higher is better. Students without one are left out.

    Returns:
        from the smallest to the largest.
    """

    def beaten(name: str) -> bool:
        return any(
            sizes[other] <= sizes[name]
            and scores[other] >= scores[name]
            and (sizes[other], scores[other]) != (sizes[name], scores[name])
            for other in scores
        )

    return sorted((name for name in scores if not beaten(name)), key=lambda name: sizes[name])


def smallest_within(sizes: Mapping[str, float], scores: Mapping[str, float], tolerance: float) -> str | None:
    """The smallest student whose score is at most ``tolerance`` below the best; None where nobody has a score.

    Args:
        sizes: {student: bytes}.
        scores: {student: figure}; higher is better.
        tolerance: not below 0.
    """
    if not scores:
        return None
    least = max(scores.values()) - tolerance
    return min((name for name in scores if scores[name] >= least), key=lambda name: (sizes[name], -scores[name]))
