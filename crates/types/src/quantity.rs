//! Kubernetes quantities, `500m`, `2Gi`, `1.5`, `1e3`.
//!
//! Grammar: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

/// Text that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity such as 500m, 2 or 4Gi")]
pub struct InvalidQuantity(String);

const SUFFIXES: [(&str, f64); 14] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
];

/// The number that a quantity stands for, in its base unit (cores, bytes, pieces).
pub fn parse_quantity(text: &str) -> Result<f64, InvalidQuantity> {
    let invalid = || InvalidQuantity(text.to_owned());
    let trimmed = text.trim();
    let (digits, scale) = SUFFIXES
        .iter()
        .find_map(|(suffix, scale)| trimmed.strip_suffix(suffix).map(|digits| (digits, *scale)))
        .unwrap_or((trimmed, 1.0));
    let value: f64 = digits.parse().map_err(|_| invalid())?;
    if value.is_finite() && value >= 0.0 {
        Ok(value * scale)
    } else {
        Err(invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_quantities() {
        for (text, value) in [("500m", 0.5), ("2", 2.0), ("1.5", 1.5), ("1e3", 1000.0)] {
            assert!(
                (parse_quantity(text).unwrap() - value).abs() < 1e-9,
                "{text}"
            );
        }
        assert!((parse_quantity("2Gi").unwrap() - 2_147_483_648.0).abs() < 0.5);
        assert!((parse_quantity("1G").unwrap() - 1e9).abs() < 0.5);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "Gi", "-1", "1GB", "NaN", "one"] {
            assert!(parse_quantity(text).is_err(), "{text}");
        }
    }
}
