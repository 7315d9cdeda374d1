"""The names of the files of KuaiSAR's logs."""

INTERACTIONS, SEARCHES = "rec_inter.csv", "src_inter.csv"
USERS, ITEMS = "user_features.csv", "item_features.csv"
NAMES = (INTERACTIONS, SEARCHES, USERS, ITEMS)
