"""What tests share: fakes, fixtures and small functions, but no tests."""
