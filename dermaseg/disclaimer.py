"""What everything that could be mistaken for medical advice says of itself."""

__all__ = ["NOT_A_DIAGNOSIS"]

NOT_A_DIAGNOSIS = "Research software: not a medical device, and no substitute for a dermatologist."
