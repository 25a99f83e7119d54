# what is built and run from tests/client
