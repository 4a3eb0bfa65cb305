//! The command line of the small commands: `mvproxy skew`, `route` and `uninstall`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use http::Method;

use super::{flags, values};

/// What to ask, whom, and how to print the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Admin address of the proxy (`--admin-address`).
    pub admin_address: SocketAddr,
    /// What to print (`-o`).
    pub output: Output,
    /// What is asked.
    pub question: Question,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What API servers serve differently.
    Skew,
    /// Where a request would go.
    Route {
        /// Method.
        method: Method,
        /// Path and query.
        path: String,
    },
}

/// Shape of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people; the default.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// One YAML document.
    Yaml,
}

/// Where a proxy listens that was not told otherwise (`--admin-address`).
pub(super) const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9643);

/// The subcommands.
pub(super) fn commands() -> [Command; 3] {
    let skew = Command::new("skew")
        .about("Show what the API servers serve differently")
        .long_about(ABOUT_SKEW)
        .after_long_help(EXAMPLES_SKEW)
        .args(common());
    let route = Command::new("route")
        .about("Show where a request would go, and why")
        .long_about(ABOUT_ROUTE)
        .after_long_help(EXAMPLES_ROUTE)
        .arg(method())
        .arg(path())
        .args(common());
    let uninstall = Command::new("uninstall")
        .about("Take everything out of the kernel that a proxy pinned there")
        .long_about(ABOUT_UNINSTALL)
        .arg(bpffs_dir());
    [skew, route, uninstall]
}

fn method() -> Arg {
    let parse = |text: &str| text.to_ascii_uppercase().parse::<Method>().map_err(|_| "not an HTTP method");
    Arg::new("method").value_name("METHOD").help("GET, POST, …").required(true).value_parser(parse)
}

fn path() -> Arg {
    let parse = |text: &str| {
        let wanted = "a path begins with /, like /apis/apps/v1/deployments?watch=1";
        if text.starts_with('/') { Ok(text.to_owned()) } else { Err(wanted) }
    };
    Arg::new("path").value_name("PATH").help("Path and query").required(true).value_parser(parse)
}

fn bpffs_dir() -> Arg {
    Arg::new("bpffs-dir")
        .long("bpffs-dir")
        .value_name("DIR")
        .help("Folder of the pinned maps and links, as `mvproxy run` was given it")
        .default_value(flags::BPFFS_DIR)
        .value_parser(values::absolute_path)
}

/// The folder that `mvproxy uninstall` is to empty; `None` for another subcommand.
pub(super) fn folder_to_uninstall(matches: &ArgMatches) -> Option<PathBuf> {
    let (_, matches) = matches.subcommand().filter(|(name, _)| *name == "uninstall")?;
    matches.get_one::<PathBuf>("bpffs-dir").cloned()
}

/// `-o`.
pub(super) fn output() -> Arg {
    Arg::new("output")
        .short('o')
        .long("output")
        .value_name("FORMAT")
        .help("Shape of the answer")
        .default_value("table")
        .value_parser(PossibleValuesParser::new(["table", "json", "yaml"]))
}

fn common() -> [Arg; 2] {
    [
        Arg::new("admin-address")
            .long("admin-address")
            .value_name("IP:PORT")
            .help("Admin address of the running proxy")
            .default_value("127.0.0.1:9643")
            .value_parser(value_parser!(SocketAddr)),
        output(),
    ]
}

/// What was asked; `None` for another subcommand.
pub(super) fn given(matches: &ArgMatches) -> Option<Ask> {
    let (name, matches) = matches.subcommand()?;
    let question = match name {
        "skew" => Question::Skew,
        "route" => Question::Route {
            method: matches.get_one::<Method>("method")?.clone(),
            path: matches.get_one::<String>("path")?.clone(),
        },
        _ => return None,
    };
    Some(Ask {
        admin_address: *matches.get_one::<SocketAddr>("admin-address")?,
        output: output_of(matches),
        question,
    })
}

/// The value of `-o`.
pub(super) fn output_of(matches: &ArgMatches) -> Output {
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => Output::Json,
        Some("yaml") => Output::Yaml,
        _ => Output::Table,
    }
}

const ABOUT_SKEW: &str = "\
Asks the proxy that runs on this node what every API server serves, and prints the resources, subresources and verbs that \
not all of them serve.";

const EXAMPLES_SKEW: &str = "\
Examples:
  During an upgrade
    mvproxy skew
  What only some servers have, for a script
    mvproxy skew -o json | jq -r '.differences[] | \"\\(.group)/\\(.version) \\(.resource)\"'

Exit codes: 0 answered, 1 no proxy answers, 2 the command line is wrong.";

const ABOUT_UNINSTALL: &str = "\
Removes every link, map and folder that a proxy pinned. From then on every new connection goes to the API server. Stop the \
proxy first: one that still runs keeps the connections it has. Needs the rights that `mvproxy run` needs.

Exit codes: 0 nothing is left, 1 something could not be removed, 2 the command line is wrong.";

const ABOUT_ROUTE: &str = "\
Asks the proxy that runs on this node where it would send a request at this moment. Nothing is sent.";

const EXAMPLES_ROUTE: &str = "\
Examples:
  mvproxy route GET /apis/resource.k8s.io/v1/deviceclasses
  mvproxy route POST /api/v1/namespaces/default/pods/web/resize -o yaml

Exit codes: 0 answered, 1 no proxy answers, 2 the command line is wrong.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Invocation};

    fn asked(words: &str) -> Option<Ask> {
        match config::parse(words.split(' ')) {
            Ok(Invocation::Ask(ask)) => Some(ask),
            _ => None,
        }
    }

    #[test]
    fn questions_are_read() {
        let skew = Ask { admin_address: ADMIN_ADDRESS, output: Output::Table, question: Question::Skew };
        assert_eq!(asked("mvproxy skew"), Some(skew.clone()));
        let elsewhere = "127.0.0.1:1".parse().expect("an address");
        let json = Ask { admin_address: elsewhere, output: Output::Json, ..skew };
        assert_eq!(asked("mvproxy skew -o json --admin-address=127.0.0.1:1"), Some(json));
        let question = Question::Route { method: Method::GET, path: "/api/v1/pods?watch=1".to_owned() };
        assert_eq!(asked("mvproxy route get /api/v1/pods?watch=1").map(|ask| ask.question), Some(question));
        for wrong in ["route GET", "route GET pods", "route", "skew -o xml", "skew now", "skew --peers=a:1"] {
            assert_eq!(asked(&format!("mvproxy {wrong}")), None, "{wrong}");
        }
    }
}
