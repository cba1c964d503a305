//! Parts of the test bed that tests break, by the command in `FERROFLOW_TEST_RESTART`. They are
//! everybody's, so whoever breaks one leaves it as it was.

use std::process::Command;

/// Asks the test bed; whether that could be done, or why nobody can be asked.
fn testbed(arguments: &[&str]) -> Result<bool, String> {
    let command = std::env::var("FERROFLOW_TEST_RESTART")
        .map_err(|_| "FERROFLOW_TEST_RESTART is not set (the parts are not the test bed's)")?;
    let result = Command::new(command)
        .arg("testbed")
        .args(arguments)
        .status()
        .expect("the test bed's command starts");
    Ok(result.success())
}

/// Kills one process of the test bed and starts it again; or why that cannot be.
pub fn restart(process: &str) -> Result<(), String> {
    let guard = TestbedGuard::ensure();
    let restarted = testbed(&["restart", process])?;
    drop(guard);
    assert!(restarted, "{process} did not come back, see above");
    Ok(())
}

/// A process of the test bed that is away; it is back when this is dropped.
pub struct KilledPart {
    process: String,
    _guard: TestbedGuard,
}

impl KilledPart {
    /// Kills it; or why that cannot be.
    pub fn kill(process: &str) -> Result<Self, String> {
        let guard = TestbedGuard::ensure();
        let killed = testbed(&["kill", process])?;
        assert!(killed, "{process} cannot be killed, see above");
        Ok(Self {
            process: process.to_owned(),
            _guard: guard,
        })
    }
}

impl Drop for KilledPart {
    fn drop(&mut self) {
        check_mended(testbed(&["restart", &self.process]), &self.process);
    }
}

/// Every part of the test bed is well when this is made, whatever the test before did, and is again
/// when it is dropped, however the test ended.
pub struct TestbedGuard(());

impl TestbedGuard {
    /// Starts what is broken.
    pub fn ensure() -> Self {
        // Parts of somebody else are left alone.
        if let Ok(is_healthy) = testbed(&["mend"]) {
            assert!(
                is_healthy,
                "the test bed is broken and cannot be mended, see above"
            );
        }
        Self(())
    }
}

impl Drop for TestbedGuard {
    fn drop(&mut self) {
        if std::env::var_os("FERROFLOW_TEST_RESTART").is_some() {
            check_mended(testbed(&["mend"]), "the test bed");
        }
    }
}

/// Fails the test for a part that did not come back, unless it fails already.
fn check_mended(result: Result<bool, String>, what: &str) {
    match result {
        Ok(true) => {}
        Ok(false) if std::thread::panicking() => println!("{what} did not come back, see above"),
        Ok(false) => panic!("{what} did not come back, see above"),
        Err(reason) => println!("{what}: {reason}"),
    }
}
