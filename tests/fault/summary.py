"""What a test has done, as a table."""

from collections.abc import Mapping

from fault.ledger import Tally


def summarize(tally: Tally, figures: Mapping[str, str], *, violations: int) -> str:
    """Return the table."""
    rows = {
        **{name: f"{number:,}" for name, number in sorted(tally.counts.items())},
        "inferences": f"{tally.outcomes.total():,}",
        **{f"  {name}": f"{number:,}" for name, number in tally.outcomes.most_common()},
        "plays": f"{tally.plays.total():,}",
        **{f"  {name}": f"{number:,}" for name, number in tally.plays.most_common()},
        **figures,
        "violations": str(violations),
    }
    wide = max(map(len, rows))
    return "\n".join(f"{name:<{wide}}  {text:>12}" for name, text in rows.items())
