"""An ETL over a DataFrame: every row through a function, in processes, failures to a second frame.

    pip install . pandas                 # in a checkout of opero
    python examples/dataframe_etl.py

It cleans 2,000 orders with pandas; some are broken. Exits with 1 if a row is lost, is out
of order, or is in the wrong frame. For polars, see `etl_polars`.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

from opero import opmap

try:
    import pandas as pd
except ImportError:
    sys.exit("This recipe needs pandas: pip install pandas")

RATES = {"EUR": Decimal("1.00"), "USD": Decimal("0.90")}


@opmap(mode="process", workers=2, unpack=True, retries=1, max_errors=0.5, progress=False)
def clean(order: int, amount: str, currency: str, email: str | None) -> dict[str, Any]:
    """Clean one row; whatever it raises is the row's failure."""
    if not isinstance(email, str) or "@" not in email:
        raise ValueError(f"{email!r} is not an e-mail address")
    euros = round(Decimal(amount.replace(",", "")) * RATES[currency], 2)
    return {"order": order, "euros": float(euros), "email": email.strip().lower()}


def etl(orders: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean all rows; return the good ones, and the others with their errors."""
    results = clean(orders.to_dict("records"))  # as long as the frame, and in its order
    good = [row for row in results if not isinstance(row, BaseException)]
    errors = {place: row for place, row in enumerate(results) if isinstance(row, BaseException)}
    failed = orders.iloc[list(errors)].assign(error=[repr(error) for error in errors.values()])
    return pd.DataFrame(good, index=orders.index.delete(list(errors))), failed


def etl_polars(orders: Any) -> tuple[Any, Any]:
    """Do the same with a polars frame."""
    import polars as pl

    results = clean(orders.to_dicts())
    good = [row for row in results if not isinstance(row, BaseException)]
    errors = {place: row for place, row in enumerate(results) if isinstance(row, BaseException)}
    why = pl.Series([repr(error) for error in errors.values()], dtype=pl.String)
    return pl.DataFrame(good), orders[list(errors)].with_columns(error=why)


def some_orders(count: int) -> pd.DataFrame:
    """Make orders; every 100th has no address, every 250th a strange currency."""
    numbers = range(count)
    return pd.DataFrame(
        {
            "order": numbers,
            "amount": [f"{number:,}.50" for number in numbers],
            "currency": ["XXX" if n % 250 == 7 else ("EUR", "USD")[n % 2] for n in numbers],
            "email": [None if n % 100 == 0 else f" Buyer{n}@Example.com" for n in numbers],
        },
        index=pd.RangeIndex(1000, 1000 + count, name="line"),
    )


def main() -> int:
    """Run the ETL; return the exit code."""
    orders = some_orders(2000)
    good, failed = etl(orders)
    print(good.head(3).to_string())
    print(failed.groupby("error").size().to_string())
    print(f"{len(orders)} rows: {len(good)} good, {len(failed)} failed")
    whole = good.index.union(failed.index).equals(orders.index)
    in_order = good.index.is_monotonic_increasing and failed.index.is_monotonic_increasing
    matched = (good["order"] == orders.loc[good.index, "order"]).all()
    right = len(failed) == 28 and failed.error.str.startswith(("ValueError", "KeyError")).all()
    return 0 if whole and in_order and matched and right else 1


if __name__ == "__main__":
    sys.exit(main())
