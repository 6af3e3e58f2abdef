//! What the disk can do to the store: fail at any call, for once or for ever, and lose its power at any moment.

mod disk;
mod io_errors;
mod power_loss;
mod vfs;
mod work;
