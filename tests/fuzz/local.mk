# what is built and run from tests/fuzz
