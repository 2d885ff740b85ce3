from .exporting import export as export
from .learning import demo as demo
from .learning import evaluate as evaluate
from .learning import train as train
from .looking import audit as audit
from .looking import presets as presets
from .looking import tasks as tasks
from .predicting import predict as predict
