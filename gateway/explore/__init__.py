"""Looking at an unknown Modbus device: which registers it has, and what their numbers may mean. Pure logic, no sockets."""
