//! One process per data directory.

use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::world::{Lock, World};

/// Takes the data directory for this process, and makes it if it is missing. It is free again when the guard is dropped or
/// the process ends, however it ends.
///
/// # Errors
/// [`Error::Operator`] if another process has it, or the directory cannot be made.
pub async fn lock(world: &World, data_dir: &Path) -> Result<Box<dyn Lock>> {
    let dir = data_dir.display();
    let made = world.disk.create_dir_all(data_dir).await;
    made.map_err(|error| Error::io(format!("the data directory {dir} cannot be made"), &error))?;
    world.disk.lock(&data_dir.join("lock")).await.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Operator(format!(
            "the data directory {dir} is in use by another quorate process: stop that one, or give this one a data_dir of \
             its own"
        )),
        _ => Error::io(format!("the data directory {dir} cannot be locked"), &error),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::world::{MemoryDisk, real};

    #[test]
    fn a_second_process_is_refused_until_the_first_lets_go() {
        let dirs = [Path::new("/data").to_path_buf(), tempfile::tempdir().unwrap().path().join("data")];
        let memory: Arc<dyn crate::world::Disk> = Arc::new(MemoryDisk::default());
        for (dir, disk) in dirs.iter().zip([memory, Arc::new(real::RealDisk::new())]) {
            let outcome = real::block_on(|mut world| async move {
                world.disk = disk;
                let first = lock(&world, dir).await.unwrap();
                let second = lock(&world, dir).await.err().map(|error| error.to_string()).unwrap_or_default();
                assert!(second.starts_with(&format!("the data directory {} is in use", dir.display())), "{second}");
                drop(first);
                lock(&world, dir).await.map(drop)
            });
            assert_eq!(outcome.unwrap(), Ok(()));
        }
    }
}
