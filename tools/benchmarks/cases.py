"""All cases by name."""

from inference import CASES as INFERENCE
from pipeline import CASES as PIPELINE
from scaling import CASES as SCALING
from startup import CASES as STARTUP
from training import CASES as TRAINING

CASES = {case.name: case for case in (*TRAINING, *INFERENCE, *PIPELINE, *SCALING, *STARTUP)}
