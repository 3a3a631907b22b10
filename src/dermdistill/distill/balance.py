"""Weights of loss terms rescaled so that each pulls in proportion to the weight that the recipe gives it.

After GradNorm (Chen et al., ICML 2018, arXiv 1711.02257), without its learned weights: once an epoch the norm of each
term's own gradient is measured, and the factors follow from it alone, so that a resumed training finds them again.
"""

from collections.abc import Mapping

from dermdistill.distill.objective import Term, Terms

# A term with hardly any gradient is not blown up without bound.
LARGEST_FACTOR = 100.0


def balance_factors(weights: Mapping[str, float], norms: Mapping[str, float]) -> dict[str, float]:
    """A factor for each term so that factor * norm is the same for all.

    The common value is the mean norm under the weights, so that the weighted sum of norms stays as it was (unless a
    factor meets its bounds, 1/100 and 100).

    Args:
        weights: of the recipe, non-negative, not all 0.
        norms: Euclidean norm of each unweighted term's gradient.

    Returns:
        positive factors by name; 1 for a term without a gradient.
    """
    common = sum(weights[name] * norms[name] for name in weights) / sum(weights.values())
    return {
        name: min(max(common / norms[name], 1 / LARGEST_FACTOR), LARGEST_FACTOR) if norms[name] > 0 else 1.0
        for name in weights
    }


def rescaled(terms: Terms, factors: Mapping[str, float]) -> Terms:
    """The same terms with their weights times the factors."""
    return {name: Term(term.value, term.weight * factors[name]) for name, term in terms.items()}
