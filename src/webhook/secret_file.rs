use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::job::Secret;

/// The secret in a file; if there is no such file, a new one, in a file that only its owner can read.
pub fn secret_in(path: &Path) -> io::Result<Secret> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|error| io::Error::new(ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut key = [0; 32];
            let random = rustls::crypto::ring::default_provider().secure_random;
            random.fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
            let secret = Secret::of(key);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{}", secret.reveal())?;
            file.sync_all()?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("webhook.secret");
        let secret = secret_in(&path).unwrap();
        assert_eq!(secret_in(&path).unwrap(), secret);
        assert_ne!(secret_in(&folder.path().join("other")).unwrap(), secret);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "whsec_short").unwrap();
        assert_eq!(secret_in(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
