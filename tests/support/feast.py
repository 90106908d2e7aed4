"""Feast in its environment: scripts that run there get JSON on standard input, and print JSON as their last line."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.read_feast import ENVIRONMENT, installed

READ = """
import json, sys
from feast import FeatureStore
asked = json.load(sys.stdin)
store = FeatureStore(asked["folder"])
view = store.get_feature_view("user_profile")
names = [f"user_profile:{field.name}" for field in view.features]
found = store.get_online_features(features=names, entity_rows=[{"user": one} for one in asked["users"]]).to_dict()
users = found.pop("user")
print(json.dumps([{name: column[n] for name, column in found.items()} for n in range(len(users))]))
"""
HISTORY = """
import json, sys
import pandas as pd
from feast import FeatureStore
asked = json.load(sys.stdin)
store = FeatureStore(asked["folder"])
names = [f"user_profile:{field.name}" for field in store.get_feature_view("user_profile").features]
frame = pd.DataFrame({"user": asked["users"], "event_timestamp": pd.to_datetime(asked["times"], unit="ms", utc=True)})
found = store.get_historical_features(entity_df=frame, features=names).to_df()
found["event_timestamp"] = found["event_timestamp"].map(lambda time: round(time.timestamp() * 1000))
print(json.dumps([{k: (v.tolist() if hasattr(v, "tolist") else None if v is None or v != v else v)
                   for k, v in row.items()} for row in found.to_dict("records")]))
"""
PUSH = """
import json, sys
import pandas as pd
from feast import FeatureStore
from feast.data_source import PushMode
asked = json.load(sys.stdin)
store = FeatureStore(asked["folder"])
frame = pd.DataFrame([asked["row"]])
for name in ("event_timestamp", "created"):
    frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
store.push("user_profile_push", frame, to=PushMode.ONLINE)
print("null")
"""


def feast_or_skip() -> None:
    """Skip the test, and say why, where Feast cannot be installed."""
    if why := installed(lambda line: None):
        pytest.skip(f"Feast is not here to test with: {why}")


def feast(code: str, **asked: Any) -> Any:
    """What `code` prints, given `asked`."""
    command = [str(ENVIRONMENT / "bin" / "python"), "-W", "ignore", "-c", code]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def feast_apply(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `feast apply` in the repository `folder`."""
    command = [str(ENVIRONMENT / "bin" / "feast"), "apply"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
