noinst_LTLIBRARIES += libiommu.la
libiommu_la_SOURCES = \
	daemon/iommu/none.c daemon/iommu/none.h \
	daemon/iommu/pci.c daemon/iommu/pci.h
