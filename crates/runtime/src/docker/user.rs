//! Who a command is, so that it can use the attempt's folder and the server can remove what it made.

use std::fmt;

use serde_json::Value;

use super::platform::SecurityContext;

/// A user and a group by number; images need not know them by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

const ROOT: User = User { uid: 0, gid: 0 };

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl User {
    /// Who we are.
    pub(super) fn current() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// `uid` or `uid:gid`; the group is the user's number when it is left out.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("docker.user: {text:?} is no number, or two with a colon between");
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        Ok(Self {
            uid: uid.parse().map_err(wrong)?,
            gid: gid.parse().map_err(wrong)?,
        })
    }

    /// Who a command is: what the task asks for, then what is configured, then who we are. Root of a
    /// rootless engine is who the engine runs as.
    ///
    /// # Errors
    /// When that user and the server cannot share a folder.
    pub(super) fn choose(
        own: Self,
        configured: Option<Self>,
        asked: &SecurityContext,
        rootless: bool,
    ) -> Result<Self, String> {
        let usual = configured.unwrap_or(if rootless { ROOT } else { own });
        let number = |value: &Option<Value>, field: &str| match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                // Canonical JSON writes numbers of 64 bits as text.
                let whole = value.as_u64().or_else(|| value.as_str()?.parse().ok());
                let whole = whole.and_then(|number| u32::try_from(number).ok());
                whole
                    .map(Some)
                    .ok_or_else(|| format!("securityContext.{field}: {value} is no user"))
            }
        };
        let user = Self {
            uid: number(&asked.run_as_user, "runAsUser")?.unwrap_or(usual.uid),
            gid: number(&asked.run_as_group, "runAsGroup")?.unwrap_or(usual.gid),
        };
        if asked.run_as_non_root == Some(true) && user.uid == 0 {
            return Err(
                "securityContext.runAsNonRoot: the command would be root, as the server is: name a \
                 user with runAsUser, or with docker.user"
                    .to_owned(),
            );
        }
        // A rootless engine's root is the server's user, and nobody else of the container is. A
        // server that is root can give folders to anybody. Any other can share one with itself, or
        // with root, whose launcher gives back what it made.
        let shares = match (rootless, own.uid) {
            (true, _) => user.uid == 0,
            (false, 0) => true,
            (false, server) => user.uid == 0 || user.uid == server,
        };
        if shares {
            Ok(user)
        } else {
            Err(format!(
                "securityContext.runAsUser or docker.user: user {} cannot share the attempt's folder \
                 with the server of user {}: leave it out, or use 0",
                user.uid, own.uid
            ))
        }
    }

    /// Whether folders that the server made must be given to the user first.
    pub(super) fn needs_chown(self, own: Self) -> bool {
        self.uid != own.uid && self.uid != 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(uid: u32) -> User {
        User { uid, gid: uid }
    }

    fn asked(uid: u32) -> SecurityContext {
        SecurityContext {
            run_as_user: Some(json!(uid.to_string())),
            ..SecurityContext::default()
        }
    }

    #[test]
    fn a_command_is_who_its_server_is_unless_somebody_asks() {
        let nothing = SecurityContext::default();
        let own = user(1000);

        assert_eq!(User::choose(own, None, &nothing, false), Ok(own));
        assert_eq!(User::choose(own, None, &nothing, true), Ok(ROOT));
        assert_eq!(
            User::choose(own, Some(ROOT), &nothing, false),
            Ok(ROOT),
            "an image that needs root"
        );
        let asked_root = User::choose(ROOT, None, &asked(65534), false).unwrap();
        assert_eq!((asked_root.uid, asked_root.gid), (65534, 0));
        assert!(asked_root.needs_chown(ROOT));
    }

    #[test]
    fn a_user_that_shares_no_folder_with_the_server_is_refused() {
        let refused = User::choose(user(1000), None, &asked(1001), false).unwrap_err();

        assert!(refused.contains("securityContext.runAsUser"), "{refused}");
        let never_root = SecurityContext {
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        };
        let refused = User::choose(ROOT, None, &never_root, false).unwrap_err();
        assert!(refused.contains("runAsNonRoot"), "{refused}");
    }
}
