use super::*;

fn mistakes(words: &[&str]) -> Vec<String> {
    match read(words.iter().map(OsString::from).collect()) {
        Outcome::Run { mistakes, .. } | Outcome::Check { mistakes, .. } | Outcome::Unusable(mistakes) => {
            mistakes.iter().map(ToString::to_string).collect()
        }
        Outcome::Show(text) => panic!("shows {text}"),
        Outcome::Ask(question) => panic!("asks {question:?}"),
        Outcome::Uninstall(folder) => panic!("uninstalls {folder:?}"),
    }
}

#[test]
fn the_table_makes_a_sound_interface() {
    command().debug_assert();
}

#[test]
fn goes_on_after_each_wrong_word() {
    let found =
        mistakes(&["mvproxy", "run", "--pears", "a:1", "stray", "--secure-port", "--listen=[::]:1", "-x"]);
    let expected = [
        "--pears: unknown, did you mean --peers?",
        "stray: unknown;",
        "--secure-port: needs a value; write --secure-port=VALUE",
        "-x: unknown;",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not {expected}");
    }
}

#[test]
fn keeps_what_is_right() {
    let words = ["mvproxy", "run", "--pears=a:1", "--peers=b:1,c:1", "--peers", "d:1", "-v4", "--listen="];
    let Outcome::Run { source, .. } = read(words.iter().map(OsString::from).collect()) else {
        panic!("{words:?} cannot be run");
    };
    assert_eq!(source.values["peers"], ["b:1,c:1", "d:1"]);
    assert_eq!(
        (source.values["v"].as_slice(), source.values["listen"].as_slice()),
        (&["4".to_owned()][..], &[String::new()][..])
    );
    assert_eq!(source.values.len(), 3);
}

#[test]
fn says_where_a_misplaced_flag_belongs() {
    assert_eq!(
        mistakes(&["mvproxy", "--secure-port=1"]),
        ["--secure-port: belongs behind the command: mvproxy run --secure-port=VALUE"]
    );
    let found = mistakes(&["mvproxy", "rum"]);
    assert!(found.len() == 1 && found[0].contains("'rum'"), "{found:?}");
}

#[test]
fn help_names_every_flag_and_its_heading() {
    let run = ["mvproxy", "run", "--help"].map(OsString::from).to_vec();
    let Outcome::Show(text) = read(run) else { panic!("--help shows nothing") };
    let text = text.to_string();
    for flag in FLAGS {
        assert!(text.contains(&format!("--{} <", flag.name)) && text.contains(flag.heading), "{}", flag.name);
    }
}
