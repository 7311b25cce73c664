"""The forecaster as an MLflow model. MLflow keeps this file itself and runs it at loading: no code is pickled."""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from isotrain.forecast.bundle import load_bundle
from isotrain.serve.predict import COVERAGE, predict, read_series, use_one_thread


class ForecasterModel(PythonModel):
    """A table as the CSV has it in, the forecast of the hours after its last row out."""

    def load_context(self, context: Any) -> None:
        """Read the bundle."""
        use_one_thread()
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """:func:`isotrain.serve.predict.predict` of a table with the headings and units of the file."""
        file = self.bundle.ingest.file
        with tempfile.TemporaryDirectory() as folder:  # through a file: read, checked and repaired as any other
            path = Path(folder) / "input.csv"
            model_input.to_csv(path, index=False, sep=file.separator, decimal=file.decimal, encoding=file.encoding)
            table = read_series(self.bundle, path)
        return predict(self.bundle, table, (params or {}).get("coverage", COVERAGE))


set_model(ForecasterModel())
