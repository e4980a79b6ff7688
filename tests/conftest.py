"""For all tests."""

from hypothesis import HealthCheck, settings

# A machine that does something else too is slow, which is no fault of what is tested.
settings.register_profile("busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
