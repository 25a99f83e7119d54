# what is built from client
