//! Everything that comes before a container is started: its image, its folders, itself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bollard::query_parameters::CreateContainerOptionsBuilder;
use ferroflow_artifacts::digest;
use ferroflow_launcher::{AttemptFiles, AttemptKey, AttemptSpec, Failure, FailureReason, OwnerKey};
use ferroflow_types::error::chain;

use super::engine::{EngineRefusal, with_retries};
use super::images::{ImageRequest, PullPolicy};
use super::objects::ContainerParams;
use super::platform::Platform;
use super::user::User;
use super::{Containers, START_TIMEOUT, images, inputs, objects, transfers};
use crate::checks::check_inputs;
use crate::folders::POLL_INTERVAL;

impl Containers {
    /// Makes everything that the container needs, and the container.
    pub(super) async fn prepare(
        &self,
        spec: AttemptSpec,
        files: &AttemptFiles,
    ) -> Result<(), Failure> {
        let key = spec.key.clone();
        let wrong = |problem| Failure::new(FailureReason::StartFailed, problem);
        // Settings that cannot be followed are told before an image is pulled for them.
        let platform = Platform::of(&spec).map_err(wrong)?;
        let own = User::current();
        let rootless = self.engine.rootless;
        let user =
            User::choose(own, self.user, &platform.security_context, rootless).map_err(wrong)?;
        let image = self.config.image(&spec.image);
        let policy = match platform.image_pull_policy.as_str() {
            "" => self.pull_policy,
            given => PullPolicy::parse(given)
                .map_err(|problem| wrong(format!("imagePullPolicy: {problem}")))?,
        };
        let wanted = ImageRequest {
            image: &image,
            policy,
            timeout: self.image_pull_timeout(),
            log: &files.log(),
        };
        let image = images::ensure(&self.docker, &key, &wanted).await?;
        let spec = AttemptSpec {
            argv: images::argv(&spec, &image)?,
            ..spec
        };
        let workspace = self.folders.workspace(&key.owner);
        self.copy_models(&spec, files.dir(), policy, &files.log())
            .await?;
        check_inputs(&self.contents, &spec).await?;
        transfers::fetch(&self.stores, &spec, files.dir()).await?;
        // Root may write anywhere, and the root of a rootless engine is the server's own user.
        let new_owner = (user.needs_chown(own) && !rootless).then_some(user);
        make_folders(&spec, files, &workspace, new_owner).map_err(|error| of_folder(&error))?;
        // The engine refuses a mount whose source is not there; the command judges a missing input.
        let present = spec.local_inputs.iter().filter(|path| path.exists());
        let spec = AttemptSpec {
            local_inputs: present.cloned().collect(),
            ..spec
        };
        let refused = |path: &PathBuf| self.refuse_input(&key.owner, path);
        if let Some(failure) = spec.local_inputs.iter().find_map(refused) {
            return Err(failure);
        }
        let body = objects::container(&ContainerParams {
            spec: &spec,
            platform: &platform,
            config: &self.config,
            engine: &self.engine,
            user,
            launcher: &self.launcher,
            dir: files.dir(),
            workspace: &workspace,
        })
        .map_err(wrong)?;
        // First: whoever finds the container after a crash starts it, and its launcher reads this.
        files.write_spec(&spec).map_err(|error| of_folder(&error))?;
        let name = objects::container_name(&key);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let engine = &self.docker;
        let create = || engine.create_container(Some(options.clone()), body.clone());
        match with_retries(&key, create).await {
            Ok(_) => Ok(()),
            // Another server's request has the name, or an earlier one whose answer was lost.
            Err(EngineRefusal { status: 409, .. }) => self.wait_until_visible(&key).await,
            Err(EngineRefusal { message, .. }) => {
                Err(wrong(format!("no container can be made: {message}")))
            }
        }
    }
}

impl Containers {
    /// Why what is at a path may not be an input of an owner's containers, if so.
    fn refuse_input(&self, owner: &OwnerKey, path: &Path) -> Option<Failure> {
        let workspace = self.folders.workspace(owner);
        let artifacts = self.config.artifacts.as_deref();
        let allowed: Vec<&Path> = artifacts.into_iter().chain([&*workspace]).collect();
        let problem = inputs::refusal_reason(path, &self.config.data_dir, &allowed)?;
        Some(Failure::new(FailureReason::StartFailed, problem))
    }

    /// An attempt that only brings content, the paths of this machine without links and each one
    /// that containers may see.
    pub(super) fn checked_fetch(&self, mut spec: AttemptSpec) -> Result<AttemptSpec, Failure> {
        for input in &mut spec.inputs {
            let real = digest::local_path(&input.uri).and_then(|path| path.canonicalize().ok());
            let Some(real) = real else { continue };
            if let Some(failure) = self.refuse_input(&spec.key.owner, &real) {
                return Err(failure);
            }
            input.uri = real.display().to_string();
        }
        Ok(spec)
    }

    /// Waits for a container whose name is taken: the engine reserves a name before the container
    /// can be inspected.
    async fn wait_until_visible(&self, key: &AttemptKey) -> Result<(), Failure> {
        let wrong = |problem| Failure::new(FailureReason::StartFailed, problem);
        let begun = Instant::now();
        loop {
            match self.state(key).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) if begun.elapsed() < START_TIMEOUT => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                Ok(None) => {
                    let name = objects::container_name(key);
                    let message = format!("the engine says that {name} is taken, and has none");
                    return Err(wrong(message));
                }
                Err(error) => return Err(wrong(chain(&error))),
            }
        }
    }
}

/// The folders that the command finds, and the files that we must be able to open afterwards.
fn make_folders(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    workspace: &Path,
    new_owner: Option<User>,
) -> io::Result<()> {
    let dir = files.dir();
    let shared = objects::shared_folders(spec, workspace);
    let content = objects::content_dir(dir);
    let schemes = objects::schemes(spec).into_iter();
    let own = [dir.join("home"), dir.join("outputs"), dir.join("work")]
        .into_iter()
        .chain(schemes.map(|scheme| content.join(scheme)));
    for folder in own.chain(shared.iter().cloned()) {
        std::fs::create_dir_all(folder)?;
    }
    // A launcher that is root would make it as root's, and the server could not open it to wait.
    files.make_lock()?;
    if let Some(user) = new_owner {
        for folder in shared.iter().map(PathBuf::as_path).chain([dir]) {
            chown_tree(folder, user)?;
        }
    }
    Ok(())
}

fn chown_tree(path: &Path, user: User) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))?;
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path)? {
            chown_tree(&entry?.path(), user)?;
        }
    }
    Ok(())
}

fn of_folder(error: &io::Error) -> Failure {
    Failure::of_io("cannot prepare the attempt", error)
}
