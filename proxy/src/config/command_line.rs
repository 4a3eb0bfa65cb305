//! Reads the command line, and goes on after a mistake so that all of them are found.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::ask::{self, Ask, Output};
use super::error::ConfigError;
use super::flags::{self, Arity, FLAGS, FlagSpec};
use super::nearest::nearest;
use super::origin::Origin;
use super::sources::Source;

/// What a command line comes to.
pub(super) enum Outcome {
    Run { source: Source, mistakes: Vec<ConfigError> },
    Check { source: Source, mistakes: Vec<ConfigError>, output: Output },
    Ask(Ask),
    Uninstall(PathBuf),
    Show(clap::Error),
    Unusable(Vec<ConfigError>),
}

/// Reads a whole command line, program name first.
///
/// clap stops at the first mistake; the word it names is taken out and the rest is read again.
pub(super) fn read(mut args: Vec<OsString>) -> Outcome {
    let mut mistakes = Vec::new();
    loop {
        let error = match command().try_get_matches_from(&args) {
            Ok(matches) => {
                return match ask::given(&matches) {
                    Some(question) if mistakes.is_empty() => Outcome::Ask(question),
                    Some(_) => Outcome::Unusable(mistakes),
                    None if let Some(folder) = ask::folder_to_uninstall(&matches) => {
                        Outcome::Uninstall(folder)
                    }
                    None => {
                        let (name, matches) = matches.subcommand().expect("clap requires a subcommand");
                        let source = given(matches);
                        match name {
                            "check" => Outcome::Check { source, mistakes, output: ask::output_of(matches) },
                            _ => Outcome::Run { source, mistakes },
                        }
                    }
                };
            }
            Err(error) => error,
        };
        if is_text(error.kind()) {
            return if mistakes.is_empty() { Outcome::Show(error) } else { Outcome::Unusable(mistakes) };
        }
        let word = context(&error, ContextKind::InvalidArg).map(first_word);
        mistakes.push(mistake(&error, word.as_deref()));
        if !word.is_some_and(|word| remove(&mut args, &word)) {
            return Outcome::Unusable(mistakes);
        }
    }
}

fn is_text(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

fn mistake(error: &clap::Error, word: Option<&str>) -> ConfigError {
    let missing = context(error, ContextKind::InvalidValue).is_some_and(str::is_empty);
    match (error.kind(), word) {
        (ErrorKind::UnknownArgument, Some(word)) if is_flag(word) => {
            ConfigError::Misplaced { flag: word.to_owned() }
        }
        (ErrorKind::UnknownArgument, Some(word)) => {
            let names = word.starts_with('-').then(|| FLAGS.iter().map(|flag| flag.name));
            let nearest = names.and_then(|names| nearest(word, names)).map(str::to_owned);
            ConfigError::UnknownFlag { word: word.to_owned(), nearest }
        }
        (ErrorKind::InvalidValue, Some(word)) if missing => {
            ConfigError::ValueMissing { flag: word.to_owned() }
        }
        _ => ConfigError::Usage { summary: summary(error) },
    }
}

fn is_flag(word: &str) -> bool {
    word == "-v" || word.strip_prefix("--").is_some_and(|name| flags::find(name).is_some())
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// clap names a flag as `--peers <HOST:PORT,...>`.
fn first_word(text: &str) -> String {
    text.split([' ', '=']).next().unwrap_or(text).to_owned()
}

/// clap's first paragraph without its prefix; tips and usage follow in others.
fn summary(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or(&text);
    let words: Vec<&str> = paragraph.trim_start_matches("error:").split_whitespace().collect();
    words.join(" ")
}

/// Takes `word` out of `args`, with the value that follows if it is a flag without `=`; false if not there.
fn remove(args: &mut Vec<OsString>, word: &str) -> bool {
    let with_value = format!("{word}=");
    let is_it = |arg: &OsString| arg == word || arg.as_encoded_bytes().starts_with(with_value.as_bytes());
    let Some(at) = args.iter().skip(1).position(is_it).map(|at| at + 1) else { return false };
    let bare_flag = args[at] == word && word.starts_with('-');
    args.remove(at);
    if bare_flag && args.get(at).is_some_and(|next| !starts_with_dash(next)) {
        args.remove(at);
    }
    true
}

fn starts_with_dash(arg: &OsStr) -> bool {
    arg.as_encoded_bytes().starts_with(b"-")
}

fn given(matches: &ArgMatches) -> Source {
    let values = FLAGS.iter().filter_map(|flag| {
        let texts = matches.get_many::<String>(flag.name)?.cloned().collect();
        Some((flag.name, texts))
    });
    Source { origin: Origin::CommandLine, values: values.collect::<BTreeMap<_, Vec<String>>>() }
}

/// The whole command-line interface.
fn command() -> Command {
    let heading = AnsiColor::Green.on_default().bold();
    let styles = Styles::styled().header(heading).usage(heading).literal(AnsiColor::Cyan.on_default());
    let run = Command::new("run")
        .about("Run the proxy beside one kube-apiserver")
        .long_about(ABOUT_RUN)
        .after_long_help(EXAMPLES)
        .args_override_self(true)
        .next_line_help(false)
        .args(FLAGS.iter().map(arg));
    let check = Command::new("check")
        .about("Say whether the proxy would run here, and what to mend")
        .long_about(ABOUT_CHECK)
        .after_long_help(EXAMPLES_CHECK)
        .args_override_self(true)
        .next_line_help(false)
        .arg(ask::output())
        .args(FLAGS.iter().map(arg));
    Command::new("mvproxy")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Mixed version proxy for Kubernetes control planes")
        .long_about(ABOUT)
        .styles(styles)
        .max_term_width(110)
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run)
        .subcommand(check)
        .subcommands(ask::commands())
}

fn arg(flag: &'static FlagSpec) -> Arg {
    let help = if flag.in_manifest { format!("{} (m)", flag.help) } else { flag.help.to_owned() };
    let action = match flag.arity {
        Arity::One => ArgAction::Set,
        Arity::Many | Arity::Each => ArgAction::Append,
    };
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .value_name(flag.placeholder)
        .help_heading(flag.heading)
        .help(help)
        .action(action);
    if flag.name == "v" { arg.short('v') } else { arg }
}

const ABOUT: &str = "\
Mixed version proxy for Kubernetes control planes.

While a cluster is upgraded its API servers differ: what only one of them serves, the others answer with 404. \
mvproxy stands before one kube-apiserver and sends such requests to a server that can answer them.";

const ABOUT_RUN: &str = "\
Runs the proxy beside one kube-apiserver, until SIGTERM.

Flags have kube-apiserver's spelling where it has the same flag. A value comes from the first place that has \
it: command line, --config, --apiserver-manifest (flags marked (m)), default. An empty value, as in \
--peer-ca-file=, counts as given and means the default. All mistakes are reported at once.";

const EXAMPLES: &str = "\
Examples:
  A kubeadm node: everything from the API server's own manifest
    mvproxy run --apiserver-manifest=/etc/kubernetes/manifests/kube-apiserver.yaml \\
        --kubeconfig=/etc/kubernetes/mvproxy.conf

  The same, with what differs in a file
    mvproxy run --config=/etc/mvproxy.yaml
  where /etc/mvproxy.yaml has
    apiserver-manifest: /etc/kubernetes/manifests/kube-apiserver.yaml
    kubeconfig: /etc/kubernetes/mvproxy.conf
    peers: [10.0.0.7:6443, 10.0.0.8:6443]

  Without BPF: clients dial port 7443 instead
    mvproxy run --apiserver-manifest=... --steering=off --listen=0.0.0.0:7443

Exit codes: 0 stopped by a signal, 1 the environment does not let it run, 2 the configuration is wrong.";

const ABOUT_CHECK: &str = "\
Looks at flags, files, kernel, rights and API servers, and says for each whether it is as it should be and what to do if \
not. Takes the flags of `mvproxy run`. Nothing is changed: kernel objects are loaded into a folder of their own that is \
removed again, and API servers are only asked who the proxy is to them.";

const EXAMPLES_CHECK: &str = "\
Examples:
  Before the first start, and whenever something seems wrong
    mvproxy check --apiserver-manifest=/etc/kubernetes/manifests/kube-apiserver.yaml \\
        --kubeconfig=/etc/kubernetes/mvproxy.conf

Exit codes: 0 it would run, 1 it would not, or not rightly, 2 the flags are wrong.";

#[cfg(test)]
mod tests;
