//! A layer between SQLite and its `unix` files, so that a test decides what the disk does ([`Disk`]).
//!
//! It becomes this process's default, so the store is opened just as a server opens it. Files that no test watches are SQLite's own.
//! Each function has SQLite's contract: pointers are valid for the call, and a file is used by one thread at a time.
#![allow(unsafe_code, reason = "SQLite is told of a VFS through a table of C functions")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Once};

use libsqlite3_sys as sys;

use super::disk::{Disk, Entry, Trouble};

/// A watched file; behind it, in the same memory, is the one that `unix` opened.
#[repr(C)]
struct File {
    /// First, as SQLite wants it.
    base: sys::sqlite3_file,
    watched: *mut Watched,
}

struct Watched {
    disk: Arc<Disk>,
    name: Arc<str>,
}

/// Puts the layer in, once in a process.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS lives as long as the process, and so does its copy, which is leaked.
        unsafe {
            let unix = sys::sqlite3_vfs_find(std::ptr::null());
            let mut vfs = *unix;
            vfs.szOsFile += c_int::try_from(size_of::<File>()).unwrap();
            vfs.pNext = std::ptr::null_mut();
            vfs.zName = c"watched".as_ptr();
            vfs.pAppData = unix.cast();
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            assert_eq!(sys::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 1), sys::SQLITE_OK);
        }
    });
}

/// The disk of a path, and the name of the file.
unsafe fn watched(path: *const c_char) -> Option<Watched> {
    if path.is_null() {
        return None;
    }
    // SAFETY: SQLite passes a string that ends.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    let name = path.file_name()?.to_str()?.into();
    Some(Watched { disk: Disk::of(path)?, name })
}

unsafe extern "C" fn open(
    vfs: *mut sys::sqlite3_vfs,
    path: sys::sqlite3_filename,
    file: *mut sys::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: `register` put the real VFS there; SQLite gives as much memory for a file as the layer asked for.
    unsafe {
        let unix = (*vfs).pAppData.cast::<sys::sqlite3_vfs>();
        let Some(watched) = watched(path) else { return (*unix).xOpen.unwrap()(unix, path, file, flags, out) };
        // A file that can't be opened has no methods, so it is not closed.
        (*file).pMethods = std::ptr::null();
        if watched.disk.call().is_some() {
            return sys::SQLITE_CANTOPEN;
        }
        let result = (*unix).xOpen.unwrap()(unix, path, real(file), flags, out);
        if result == sys::SQLITE_OK {
            let file = file.cast::<File>();
            (*file).watched = Box::into_raw(Box::new(watched));
            (*file).base.pMethods = &raw const METHODS;
        } else if !(*real(file)).pMethods.is_null() {
            (*(*real(file)).pMethods).xClose.unwrap()(real(file));
        }
        result
    }
}

unsafe extern "C" fn delete(vfs: *mut sys::sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let unix = (*vfs).pAppData.cast::<sys::sqlite3_vfs>();
        let watched = watched(path);
        if watched.as_ref().is_some_and(|watched| watched.disk.call().is_some()) {
            return sys::SQLITE_IOERR_DELETE;
        }
        let result = (*unix).xDelete.unwrap()(unix, path, sync);
        if let Some(Watched { disk, name }) = watched.filter(|_| result == sys::SQLITE_OK) {
            disk.note(|| Entry::Removed(name));
        }
        result
    }
}

/// The file that `unix` opened.
unsafe fn real(file: *mut sys::sqlite3_file) -> *mut sys::sqlite3_file {
    // SAFETY: it stands behind the layer's own, in memory that is large enough for both.
    unsafe { file.cast::<File>().add(1).cast() }
}

unsafe fn of<'a>(file: *mut sys::sqlite3_file) -> &'a Watched {
    // SAFETY: only files that `open` made have these methods, and `close` is the last of them.
    unsafe { &*(*file.cast::<File>()).watched }
}

/// Calls the method of the file that `unix` opened.
macro_rules! real {
    ($file:ident.$method:ident($($argument:expr),*)) => {
        // SAFETY: arguments are SQLite's own; the file is open, and `unix` has all methods.
        unsafe { (*(*real($file)).pMethods).$method.unwrap()(real($file), $($argument),*) }
    };
}

/// A method that does nothing but call that of the real file.
macro_rules! pass {
    ($name:ident = $method:ident($($argument:ident: $kind:ty),*)) => {
        unsafe extern "C" fn $name(file: *mut sys::sqlite3_file $(, $argument: $kind)*) -> c_int {
            real!(file.$method($($argument),*))
        }
    };
}

pass!(lock = xLock(level: c_int));
pass!(unlock = xUnlock(level: c_int));
pass!(check_reserved_lock = xCheckReservedLock(out: *mut c_int));
pass!(sector_size = xSectorSize());
pass!(device_characteristics = xDeviceCharacteristics());
pass!(shm_lock = xShmLock(offset: c_int, n: c_int, flags: c_int));
pass!(shm_unmap = xShmUnmap(delete: c_int));

unsafe extern "C" fn shm_barrier(file: *mut sys::sqlite3_file) {
    real!(file.xShmBarrier());
}

unsafe extern "C" fn shm_map(
    file: *mut sys::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: see `of`.
    if unsafe { of(file) }.disk.call().is_some() {
        // SAFETY: SQLite wants an answer here in any case.
        unsafe { *out = std::ptr::null_mut() };
        return sys::SQLITE_IOERR_SHMMAP;
    }
    real!(file.xShmMap(page, size, extend, out))
}

unsafe extern "C" fn close(file: *mut sys::sqlite3_file) -> c_int {
    let result = real!(file.xClose());
    // SAFETY: `open` made it, and nobody uses a file that is closed.
    drop(unsafe { Box::from_raw((*file.cast::<File>()).watched) });
    result
}

unsafe extern "C" fn read(file: *mut sys::sqlite3_file, to: *mut c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: see `of`.
    if unsafe { of(file) }.disk.call().is_some() {
        return sys::SQLITE_IOERR_READ;
    }
    real!(file.xRead(to, count, at))
}

unsafe extern "C" fn write(file: *mut sys::sqlite3_file, from: *const c_void, count: c_int, at: i64) -> c_int {
    // SAFETY: see `of`.
    let Watched { disk, name } = unsafe { of(file) };
    let write = |count: c_int| {
        let result = real!(file.xWrite(from, count, at));
        if result == sys::SQLITE_OK {
            // SAFETY: SQLite lets so many bytes be read here.
            let data = || unsafe { std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(count).unwrap()) }.to_vec();
            disk.note(|| Entry::Written { file: Arc::clone(name), at: at.try_into().unwrap(), data: data() });
        }
        result
    };
    match disk.call() {
        None => write(count),
        Some(Trouble::Error) => sys::SQLITE_IOERR_WRITE,
        Some(Trouble::Full) => sys::SQLITE_FULL,
        Some(Trouble::Short) => {
            write(count / 2);
            sys::SQLITE_FULL
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sys::sqlite3_file, to: i64) -> c_int {
    // SAFETY: see `of`.
    let Watched { disk, name } = unsafe { of(file) };
    if disk.call().is_some() {
        return sys::SQLITE_IOERR_TRUNCATE;
    }
    let result = real!(file.xTruncate(to));
    if result == sys::SQLITE_OK {
        disk.note(|| Entry::Cut { file: Arc::clone(name), to: to.try_into().unwrap() });
    }
    result
}

unsafe extern "C" fn sync(file: *mut sys::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: see `of`.
    let Watched { disk, name } = unsafe { of(file) };
    if disk.call().is_some() {
        disk.note(|| Entry::NotSynced(Arc::clone(name)));
        return sys::SQLITE_IOERR_FSYNC;
    }
    let result = real!(file.xSync(flags));
    if result == sys::SQLITE_OK {
        disk.note(|| Entry::Synced(Arc::clone(name)));
    }
    result
}

unsafe extern "C" fn file_size(file: *mut sys::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: see `of`.
    if unsafe { of(file) }.disk.call().is_some() {
        return sys::SQLITE_IOERR_FSTAT;
    }
    real!(file.xFileSize(out))
}

unsafe extern "C" fn file_control(file: *mut sys::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: see `of`; a PRAGMA comes as an array of its name and its value, which is text of SQLite's own that it reads afterwards.
    unsafe {
        if op == sys::SQLITE_FCNTL_PRAGMA && of(file).disk.is_careless() {
            let words = argument.cast::<*mut c_char>();
            let (name, value) = (*words.add(1), *words.add(2));
            if !value.is_null() && CStr::from_ptr(name) == c"synchronous" && CStr::from_ptr(value) == c"FULL" {
                // By number, NORMAL is shorter than FULL.
                std::ptr::copy_nonoverlapping(c"1".as_ptr(), value, 2);
            }
        }
    }
    real!(file.xFileControl(op, argument))
}

/// Without memory maps, through which a file would be read past this layer.
static METHODS: sys::sqlite3_io_methods = sys::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
