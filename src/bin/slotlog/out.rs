//! Where a command writes to.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::common::guard::spare_store;
use super::common::plain::{self, one_line};
use super::failure::Failure;

const BUFFER: usize = 1 << 18;

/// Standard output.
pub struct Out {
    to: BufWriter<Box<dyn Write>>,
}

impl Out {
    pub fn standard() -> Out {
        Out { to: BufWriter::with_capacity(BUFFER, Box::new(io::stdout().lock())) }
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(Failure::of_output)
    }

    /// Hands everything on to the reader, which may be waiting for it.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(Failure::of_output)
    }
}

/// Prints a text.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = Out::standard();
    out.write(text.as_bytes())?;
    out.flush()
}

/// Prints a report as JSON.
pub fn print_json(report: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(report).map_err(|error| Failure::new(error.to_string()))?;
    print(&format!("{}\n", plain::json(json)))
}

/// Says something beside the output.
pub fn note(text: &str) {
    // If this fails, there is no way left to say it.
    let _ = writeln!(io::stderr(), "slotlog: {}", one_line(text));
}

/// Whether colours may be used on standard output: it is a terminal, and `NO_COLOR` is not set.
pub fn has_colours() -> bool {
    io::stdout().is_terminal() && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

/// A file that gets its name once it is complete; or, for `-`, standard output.
pub struct NewFile {
    to: BufWriter<Box<dyn Write>>,
    /// The name that the file will have, and the one that it has.
    names: Option<(PathBuf, PathBuf)>,
}

impl NewFile {
    pub fn create(path: &Path, overwrite: bool) -> Result<NewFile, Failure> {
        if path.as_os_str() == "-" {
            return Ok(NewFile { to: Out::standard().to, names: None });
        }
        let failed = |error: io::Error| Failure::new(format!("{}: could not be written: {error}", path.display()));
        let (file, names) = match fs::metadata(path) {
            // A device or a pipe stays what it is.
            Ok(there) if !there.is_file() => (File::create(path).map_err(failed)?, None),
            // A link that leads nowhere is something, too.
            _ if !overwrite && fs::symlink_metadata(path).is_ok() => {
                return Err(Failure::new(format!("{}: already exists; use --overwrite to replace it", path.display())));
            }
            _ => {
                spare_store(path).map_err(Failure::Message)?;
                let (file, unfinished) = create_unfinished(path).map_err(failed)?;
                (file, Some((path.to_owned(), unfinished)))
            }
        };
        Ok(NewFile { to: BufWriter::with_capacity(BUFFER, Box::new(file)), names })
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> Failure {
        match &self.names {
            Some((name, _)) => Failure::new(format!("{}: could not be written: {error}", name.display())),
            None => Failure::of_output(error),
        }
    }

    /// The file is complete: it is made durable, and gets its name.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.to.flush().map_err(|error| self.failed(error))?;
        if let Some((name, unfinished)) = &self.names {
            let file = File::open(unfinished).and_then(|file| file.sync_all());
            file.and_then(|()| fs::rename(unfinished, name)).map_err(|error| self.failed(error))?;
            self.names = None;
        }
        Ok(())
    }
}

/// Creates the file that gets the name once it is complete. What has such a name already is not touched: it may be that
/// of another program which is writing the same file.
fn create_unfinished(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut number = 0;
    loop {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(if number == 0 { ".unfinished".to_owned() } else { format!(".unfinished-{number}") });
        match File::create_new(&unfinished) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            created => return created.map(|file| (file, unfinished.into())),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some((_, unfinished)) = &self.names {
            // What is left of a failure is of no use; if it cannot be removed, its name says so.
            let _ = fs::remove_file(unfinished);
        }
    }
}
