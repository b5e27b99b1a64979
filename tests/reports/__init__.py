"""Every format against the same reports (`tests.reports.samples`)."""
