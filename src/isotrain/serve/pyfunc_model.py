"""The forecaster as an MLflow model. MLflow keeps this file itself and runs it at loading: no code is pickled."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from isotrain.errors import InputError
from isotrain.forecast.bundle import Bundle, load_bundle
from isotrain.serve.predict import COVERAGE, SERIES, in_one, predict, read_series, use_one_thread


class ForecasterModel(PythonModel):
    """A table as the CSV has it in, the forecast of the hours after its last row out."""

    def load_context(self, context: Any) -> None:
        """Read the bundle."""
        use_one_thread()
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """:func:`isotrain.serve.predict.predict` of a table with the headings and units of the file.

        Of a forecaster of many series: of the rows of each series that the column ``series`` names.
        """
        coverage = (params or {}).get("coverage", COVERAGE)
        if len(self.bundle.names) == 1:
            return self._of_one(self.bundle, model_input, coverage)
        if SERIES not in model_input:
            raise InputError(f"the input has no column {SERIES!r}, which says of which series a row is")
        parts = {str(name): rows.drop(columns=SERIES) for name, rows in model_input.groupby(SERIES, sort=False)}
        return in_one({name: self._of_one(self.bundle.only(name), rows, coverage) for name, rows in parts.items()})

    def _of_one(self, bundle: Bundle, rows: pd.DataFrame, coverage: float) -> pd.DataFrame:
        file = bundle.ingest.file
        with tempfile.TemporaryDirectory() as folder:  # through a file: read, checked and repaired as any other
            path = Path(folder) / "input.csv"
            rows.to_csv(path, index=False, sep=file.separator, decimal=file.decimal, encoding=file.encoding)
            table = read_series(bundle, path)
        return predict(bundle, table, coverage)


set_model(ForecasterModel())
