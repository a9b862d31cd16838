"""What tests of several files share. No test is in here."""
