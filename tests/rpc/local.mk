# what is built and run from tests/rpc
