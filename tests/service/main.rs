//! The program as its users run it: started, killed, drained, and driven by its own command line.

mod command_line;
mod crash;
mod drain;
mod server;
mod slow_clients;
mod workers;
