use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::job::Secret;

/// The secret in a file; if there is no such file, a new one, in a file that only its owner can read.
pub fn secret_in(path: &Path) -> io::Result<Secret> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|error| io::Error::new(ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let mut key = [0; 32];
            let random = rustls::crypto::ring::default_provider().secure_random;
            random.fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
            let secret = Secret::of(key);
            // Under its name only when it is whole: no server starts with an empty one.
            let mut file = NamedTempFile::new_in(folder)?;
            writeln!(file, "{}", secret.reveal())?;
            file.as_file().sync_all()?;
            file.persist_noclobber(path)?;
            File::open(folder)?.sync_all()?;
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
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
        fs::write(&path, "whsec_short").unwrap();
        assert_eq!(secret_in(&path).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
